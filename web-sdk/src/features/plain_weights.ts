/**
 * A copy of a TFLite model with the weights that LiteRT.js computes fast. Two kinds of weights keep it from giving a network
 * to XNNPACK as a whole, and what is left over is computed by plain loops without vector instructions:
 *
 * * 16-bit floats behind DEQUANTIZE. They become 32-bit floats, bit for bit what DEQUANTIZE gives, and that operator goes.
 * * 8-bit weights of a depthwise convolution whose input is float. They are multiplied by their scales. The interpreter
 *   would round the input to 8 bits as well; here it is not rounded, so the output is nearer to the network that was trained.
 *
 * Weights that are used in another way too stay as they are. New bytes go to the end of the copy; the file does not change.
 */

import {operatorKinds, type Reader, readModel} from './flatbuffer.js';

const DEPTHWISE_CONV = 4, DEQUANTIZE = 6;
const FLOAT32 = 0, FLOAT16 = 1, INT8 = 9;
// Fields of the schema's tables.
const GRAPHS = 2, BUFFERS = 4, TENSORS = 0, GRAPH_OUTPUTS = 2, OPERATORS = 3, INPUTS = 1, OUTPUTS = 2;
const SHAPE = 0, TYPE = 1, BUFFER = 2, QUANTIZATION = 4, SCALE = 2, ZERO_POINT = 3, AXIS = 6, DATA = 0, OFFSET = 1, SIZE = 2;
const EMPTY_TABLE = Uint8Array.of(4, 0, 4, 0, 4, 0, 0, 0); // its layout, then the table itself
const ALIGNMENT = 16;

/** @throws EngineError the bytes are no TFLite model. */
export function plainWeights(model: Uint8Array): Uint8Array {
  const reader = readModel(model), root = reader.follow(0), graphs = reader.tables(root, GRAPHS);
  if (graphs.length !== 1) return model; // others may use the same weights
  const [graph] = graphs, tensors = reader.tables(graph, TENSORS), buffers = reader.tables(root, BUFFERS);
  const operators = reader.tables(graph, OPERATORS), codes = operatorKinds(reader, root);
  const kindOf = (operator: number) => codes[reader.int(operator, 0, 0, 'getUint32')];
  const bufferOf = (tensor: number) => reader.int(tensors[tensor], BUFFER, 0, 'getUint32');
  const typeOf = (tensor: number) => reader.byte(tensors[tensor], TYPE);
  const constant = (tensor: number) => bufferOf(tensor) > 0 && stored(reader, buffers[bufferOf(tensor)]) !== null;

  const plain = new Map<number, Float32Array>(), insteadOf = new Map<number, number>(), gone = new Set<number>();
  const usedBy = (tensor: number) => operators.filter(operator => reader.ints(operator, INPUTS).includes(tensor));
  const alone = (tensor: number) => tensors.filter((_, i) => bufferOf(i) === bufferOf(tensor)).length === 1;
  const answers = new Set(reader.ints(graph, GRAPH_OUTPUTS));
  for (const operator of operators) {
    const [input, weights] = reader.ints(operator, INPUTS), [output] = reader.ints(operator, OUTPUTS);
    if (kindOf(operator) === DEQUANTIZE && typeOf(input) === FLOAT16 && constant(input) && alone(input) && !answers.has(output)) {
      if (usedBy(input).some(other => kindOf(other) !== DEQUANTIZE)) continue;
      plain.set(input, fromHalf(stored(reader, buffers[bufferOf(input)])!));
      insteadOf.set(output, input);
      gone.add(operator);
    } else if (kindOf(operator) === DEPTHWISE_CONV && typeOf(input) === FLOAT32 && typeOf(weights) === INT8) {
      if (!constant(weights) || !alone(weights) || usedBy(weights).length > 1) continue;
      const values = scaled(reader, tensors[weights], stored(reader, buffers[bufferOf(weights)])!);
      if (values !== null) plain.set(weights, values);
    }
  }
  if (!plain.size) return model;

  const room = [...plain.values()].reduce((n, values) => n + values.byteLength + 2 * ALIGNMENT, model.length + ALIGNMENT);
  const bytes = new Uint8Array(room), view = new DataView(bytes.buffer);
  bytes.set(model);
  const empty = aligned(model.length);
  bytes.set(EMPTY_TABLE, empty);
  let at = empty + EMPTY_TABLE.length;
  for (const [tensor, values] of plain) {
    const table = tensors[tensor], buffer = buffers[bufferOf(tensor)];
    const [data, offset, size] = [DATA, OFFSET, SIZE].map(field => reader.field(buffer, field)), start = aligned(at + 4);
    view.setUint32(start - 4, values.byteLength, true);
    bytes.set(new Uint8Array(values.buffer), start);
    if (data) view.setUint32(data, start - 4 - data, true);
    else {
      view.setBigUint64(offset, BigInt(start), true);
      view.setBigUint64(size, BigInt(values.byteLength), true);
    }
    view.setInt8(reader.field(table, TYPE), FLOAT32);
    const quantization = reader.field(table, QUANTIZATION);
    if (quantization) view.setUint32(quantization, empty + 4 - quantization, true);
    at = start + values.byteLength;
  }
  replaceInputs(reader, view, operators, insteadOf);
  keepOperators(reader, view, graph, operators.filter(operator => !gone.has(operator)));
  return bytes.subarray(0, aligned(at));
}

function aligned(at: number): number {
  return Math.ceil(at / ALIGNMENT) * ALIGNMENT;
}

/** The bytes of a buffer, in the FlatBuffer or behind it; null where it has none. */
function stored(reader: Reader, buffer: number): Uint8Array | null {
  const {bytes, view} = reader, [data, offset, size] = [DATA, OFFSET, SIZE].map(field => reader.field(buffer, field));
  if (data) {
    const vector = reader.follow(data), n = view.getUint32(vector, true);
    return n ? bytes.subarray(vector + 4, vector + 4 + n) : null;
  }
  if (!offset || !size) return null;
  const start = Number(view.getBigUint64(offset, true));
  return start > 1 ? bytes.subarray(start, start + Number(view.getBigUint64(size, true))) : null;
}

/** 16-bit floats as 32-bit ones; every value has one. */
export function fromHalf(half: Uint8Array): Float32Array {
  const view = new DataView(half.buffer, half.byteOffset, half.byteLength), values = new Float32Array(half.length >> 1);
  for (let i = 0; i < values.length; i++) {
    const bits = view.getUint16(2 * i, true), sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    if (exponent === 31) values[i] = fraction ? NaN : sign * Infinity;
    else values[i] = sign * (exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction);
  }
  return values;
}

/** 8-bit values times their scales: one for all, or one for each index of an axis; null where zero is not zero. */
function scaled(reader: Reader, tensor: number, data: Uint8Array): Float32Array | null {
  const where = reader.field(tensor, QUANTIZATION);
  if (!where) return null;
  const table = reader.follow(where), scales = floats(reader, table, SCALE), axis = reader.int(table, AXIS, 0);
  const shape = reader.ints(tensor, SHAPE), inner = shape.slice(axis + 1).reduce((a, b) => a * b, 1);
  if (scales.length !== 1 && scales.length !== shape[axis]) return null;
  const zeros = reader.field(table, ZERO_POINT), vector = zeros && reader.follow(zeros);
  for (let k = 0; zeros && k < reader.view.getUint32(vector, true); k++) {
    if (reader.view.getBigInt64(vector + 4 + 8 * k, true) !== 0n) return null;
  }
  const values = Float32Array.from(new Int8Array(data.buffer, data.byteOffset, data.byteLength));
  for (let i = 0; i < values.length; i++) values[i] *= scales[scales.length === 1 ? 0 : Math.floor(i / inner) % shape[axis]];
  return values;
}

function floats(reader: Reader, table: number, field: number): number[] {
  const at = reader.field(table, field), vector = at && reader.follow(at);
  if (!at) return [];
  return Array.from({length: reader.view.getUint32(vector, true)}, (_, k) => reader.view.getFloat32(vector + 4 + 4 * k, true));
}

/** Writes other tensors into the lists of inputs. */
function replaceInputs(reader: Reader, view: DataView, operators: readonly number[], insteadOf: ReadonlyMap<number, number>): void {
  for (const operator of operators) {
    const vector = reader.follow(reader.field(operator, INPUTS));
    reader.ints(operator, INPUTS).forEach((tensor, k) => view.setInt32(vector + 4 + 4 * k, insteadOf.get(tensor) ?? tensor, true));
  }
}

/** Shortens the graph's list of operators. */
function keepOperators(reader: Reader, view: DataView, graph: number, operators: readonly number[]): void {
  const vector = reader.follow(reader.field(graph, OPERATORS));
  view.setUint32(vector, operators.length, true);
  operators.forEach((operator, k) => view.setUint32(vector + 4 + 4 * k, operator - (vector + 4 + 4 * k), true));
}
