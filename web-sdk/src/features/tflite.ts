/**
 * A copy of a TFLite model for inputs of one size. Our networks take any height and width, LiteRT.js fixed ones only, and
 * the size of every tensor should stand in the file. So sizes are worked out operator by operator, as the interpreter does
 * when an input is resized, and written into a copy: no second file is needed, and no weights are stored twice.
 *
 * The file is a FlatBuffer; the numbers below are those of its schema (tensorflow/lite/schema/schema.fbs). What is new
 * goes to the end of the copy: in the file equal lists may be kept once for several tensors.
 */

import {EngineError} from '../errors.js';
import {operatorKinds, Reader, readModel} from './flatbuffer.js';

type Shape = readonly number[];

const ADD = 0, AVERAGE_POOL = 1, CONV = 3, DEPTHWISE_CONV = 4, MAX_POOL = 17, PAD = 34;
/** The output has the size of the first input that has four dimensions and is no constant. */
const ELEMENTWISE = new Set([ADD, 6, 14, 18, 19, 21, 28, 41, 53, 54, 55, 57, 98, 114, 117]);
const VALID = 1;

/**
 * A model for inputs (1, height, width, C).
 *
 * @throws EngineError the bytes are no TFLite model, or it has an operator whose output's size is not known here.
 */
export function sizedModel(model: Uint8Array, height: number, width: number): Uint8Array {
  const reader = readModel(model), root = reader.follow(0), [graph] = reader.tables(root, 2), tensors = reader.tables(graph, 0);
  const shapes = inferShapes(reader, root, graph, tensors, height, width);
  const start = (model.length + 3) & ~3, bytes = new Uint8Array(start + 20 * shapes.size), view = new DataView(bytes.buffer);
  bytes.set(model);
  let at = start;
  for (const [tensor, shape] of shapes) {
    view.setUint32(at, shape.length, true);
    shape.forEach((n, k) => view.setInt32(at + 4 + 4 * k, n, true));
    for (const field of [0, 7]) { // shape, shape_signature
      const where = reader.field(tensors[tensor], field);
      if (where) view.setUint32(where, at - where, true);
    }
    at += 20;
  }
  return bytes;
}

/** Shapes of the tensors that depend on the input, by index. */
function inferShapes(
  reader: Reader, root: number, graph: number, tensors: readonly number[], height: number, width: number,
): Map<number, Shape> {
  const codes = operatorKinds(reader, root), buffers = reader.tables(root, 4), shapes = new Map<number, Shape>(), stored = (i: number) => reader.ints(tensors[i], 0);
  for (const input of reader.ints(graph, 1)) shapes.set(input, [1, height, width, stored(input)[3]]);
  for (const operator of reader.tables(graph, 3)) {
    const inputs = reader.ints(operator, 1), [output] = reader.ints(operator, 2), known = inputs.filter(i => shapes.has(i));
    if (!known.length) continue; // of constants alone
    const kind = codes[reader.int(operator, 0, 0, 'getUint32')], from = shapes.get(known[0])!, options = reader.follow(reader.field(operator, 4) || 0);
    const channels = stored(output)[3];
    if (kind === CONV || kind === DEPTHWISE_CONV) {
      const [, kh, kw] = stored(inputs[1]), dilation = kind === CONV ? 4 : 5;
      shapes.set(output, [1, ...slid(reader, options, from, [kh, kw], [reader.int(options, dilation + 1, 1), reader.int(options, dilation, 1)]), channels]);
    } else if (kind === AVERAGE_POOL || kind === MAX_POOL) {
      const window = [reader.int(options, 4, 0), reader.int(options, 3, 0)];
      shapes.set(output, [1, ...slid(reader, options, from, window, [1, 1]), channels]);
    } else if (kind === PAD) {
      const [data] = [buffers[reader.int(tensors[inputs[1]], 2, 0, 'getUint32')]].map(buffer => reader.follow(reader.field(buffer, 0)));
      shapes.set(output, from.map((n, k) => n + reader.view.getInt32(data + 4 + 8 * k, true) + reader.view.getInt32(data + 8 + 8 * k, true)));
    } else if (ELEMENTWISE.has(kind) && from.length === 4) {
      shapes.set(output, [1, from[1], from[2], channels]);
    } else throw new EngineError(`the network has an operator (${kind}) that delf-edge cannot size in a browser; update delf-edge`);
  }
  return shapes;
}

/** (height, width) of what a window of a size, dilated, leaves that moves in the strides of its options. */
function slid(reader: Reader, options: number, [, h, w]: Shape, window: readonly number[], dilation: readonly number[]): number[] {
  const valid = reader.byte(options, 0) === VALID, strides = [reader.int(options, 2, 0), reader.int(options, 1, 0)];
  return [h, w].map((n, k) => Math.ceil((valid ? n - (window[k] - 1) * dilation[k] : n) / strides[k]));
}
