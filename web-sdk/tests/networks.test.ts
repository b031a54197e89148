/** What LiteRT.js is given instead of the files of a bundle: sizes in every tensor, and weights that it computes fast. */

import assert from 'node:assert/strict';
import {test} from 'node:test';

import {EngineError} from '../src/errors.js';
import {operatorKinds, type Reader, readModel} from '../src/features/flatbuffer.js';
import {fromHalf, plainWeights} from '../src/features/plain_weights.js';
import {sizedModel} from '../src/features/tflite.js';
import {bundleFiles} from './vectors.js';

const files = bundleFiles(), DEPTHWISE_CONV = 4, DEQUANTIZE = 6, FLOAT32 = 0, FLOAT16 = 1, INT8 = 9;

interface Operator {
  readonly kind: number;
  /** Types and shapes of what it reads. */
  readonly types: readonly number[];
  readonly shapes: readonly (readonly number[])[];
  readonly output: readonly number[];
}

function operators(model: Uint8Array): Operator[] {
  const reader: Reader = readModel(model), root = reader.follow(0), [graph] = reader.tables(root, 2), tensors = reader.tables(graph, 0);
  const codes = operatorKinds(reader, root);
  return reader.tables(graph, 3).map(operator => {
    const inputs = reader.ints(operator, 1), [output] = reader.ints(operator, 2);
    return {
      kind: codes[reader.int(operator, 0, 0, 'getUint32')],
      types: inputs.map(i => reader.byte(tensors[i], 1)),
      shapes: inputs.map(i => reader.ints(tensors[i], 0)),
      output: reader.ints(tensors[output], 0),
    };
  });
}

test('16-bit weights become 32-bit ones, and no operator turns them any more', () => {
  const before = files.get('local_float16.tflite')!, kept = before.slice(), after = plainWeights(before);
  assert.deepEqual(before, kept); // the file's bytes are not written to
  const [old, now] = [operators(before), operators(after)];
  assert.ok(old.some(o => o.kind === DEQUANTIZE));
  assert.deepEqual(now.map(o => o.kind), old.map(o => o.kind).filter(kind => kind !== DEQUANTIZE));
  assert.ok(now.every(o => !o.types.includes(FLOAT16)));
  const shapes = (of: Operator[]) => of.filter(o => o.kind !== DEQUANTIZE).map(o => o.shapes);
  assert.deepEqual(shapes(now), shapes(old));
});

test('a depthwise convolution of floats gets float weights, and others keep theirs', () => {
  const before = operators(files.get('tail_dynamic_range.tflite')!), after = operators(plainWeights(files.get('tail_dynamic_range.tflite')!));
  assert.deepEqual(after.map(o => o.kind), before.map(o => o.kind));
  assert.ok(before.filter(o => o.kind === DEPTHWISE_CONV).every(o => o.types[1] === INT8));
  assert.ok(after.filter(o => o.kind === DEPTHWISE_CONV).every(o => o.types[0] === FLOAT32 && o.types[1] === FLOAT32));
  assert.deepEqual(after.filter(o => o.kind !== DEPTHWISE_CONV), before.filter(o => o.kind !== DEPTHWISE_CONV));
});

test('a network in whole numbers stays as it is', () => {
  const model = files.get('local_int8.tflite')!;
  assert.equal(plainWeights(model), model);
});

test('every operator has the size of its output', () => {
  for (const name of ['local_float16.tflite', 'local_int8.tflite']) {
    const sized = operators(sizedModel(plainWeights(files.get(name)!), 170, 226));
    assert.deepEqual(sized[0].shapes[0], [1, 170, 226, 3], name);
    assert.deepEqual(sized.filter(o => o.output[3] === 112).at(-1)!.output, [1, 11, 15, 112], name);
  }
});

test('every 16-bit float is read exactly', () => {
  const values = fromHalf(Uint8Array.of(0x00, 0x3c, 0x00, 0xc0, 0x55, 0x35, 0x01, 0x00, 0xff, 0x03, 0xff, 0x7b, 0x00, 0x80, 0x00, 0x7c, 0x00, 0xfc, 0x01, 0x7e));
  const wanted = [1, -2, 0.333251953125, 2 ** -24, 1023 * 2 ** -24, 65504, -0, Infinity, -Infinity, NaN];
  assert.deepEqual([...values], wanted);
});

test('what is no network is refused', () => {
  assert.throws(() => plainWeights(Uint8Array.from({length: 64}, () => 7)), EngineError);
});
