/** Arrays of NumPy: a zip archive (stored or deflated) of `.npy` files. Plain numbers only; objects are refused. */

import {BundleError} from '../errors.js';
import {crc32} from './crc32.js';
import {messageOf} from './fetch.js';

export type ArrayData =
  | Float32Array | Float64Array | Int8Array | Uint8Array | Int16Array | Uint16Array | Int32Array | Uint32Array | BigInt64Array;

/** One array. `dtype` is NumPy's, such as "float32"; float16 is read into a Float32Array. */
export interface NpyArray {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data: ArrayData;
}

const KINDS: Readonly<Record<string, [name: string, size: number, read: (b: ArrayBuffer) => ArrayData]>> = {
  '<f8': ['float64', 8, b => new Float64Array(b)],
  '<f4': ['float32', 4, b => new Float32Array(b)],
  '<f2': ['float16', 2, b => Float32Array.from(new Uint16Array(b), half)],
  '|i1': ['int8', 1, b => new Int8Array(b)],
  '|u1': ['uint8', 1, b => new Uint8Array(b)],
  '|b1': ['bool', 1, b => new Uint8Array(b)],
  '<i2': ['int16', 2, b => new Int16Array(b)],
  '<u2': ['uint16', 2, b => new Uint16Array(b)],
  '<i4': ['int32', 4, b => new Int32Array(b)],
  '<u4': ['uint32', 4, b => new Uint32Array(b)],
  '<i8': ['int64', 8, b => new BigInt64Array(b)],
};

/**
 * The arrays of an npz file by name.
 *
 * @param what how messages call the file.
 * @throws BundleError it is none, is damaged, or holds something else.
 */
export async function readNpz(bytes: Uint8Array, what: string): Promise<Map<string, NpyArray>> {
  try {
    const arrays = new Map<string, NpyArray>();
    for (const [name, content] of await unzip(bytes)) arrays.set(name.replace(/\.npy$/, ''), npy(content));
    return arrays;
  } catch (e) {
    throw new BundleError(`${what} is not an npz of plain arrays: ${messageOf(e)}`);
  }
}

/** The files of a zip archive by name, each compared with its CRC-32. */
async function unzip(bytes: Uint8Array): Promise<Map<string, Uint8Array>> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let end = bytes.length - 22;
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end--;
  if (end < 0) throw new Error('no directory at its end');
  const files = new Map<string, Uint8Array>(), text = new TextDecoder();
  for (let n = view.getUint16(end + 10, true), at = view.getUint32(end + 16, true); n > 0; n--) {
    if (view.getUint32(at, true) !== 0x02014b50) throw new Error('its directory is damaged');
    const way = view.getUint16(at + 10, true), crc = view.getUint32(at + 16, true), packed = view.getUint32(at + 20, true);
    const size = view.getUint32(at + 24, true), nameSize = view.getUint16(at + 28, true), local = view.getUint32(at + 42, true);
    const name = text.decode(bytes.subarray(at + 46, at + 46 + nameSize));
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    const raw = bytes.subarray(start, start + packed);
    if (way !== 0 && way !== 8) throw new Error(`${name} is compressed in way ${way}`);
    const content = way === 0 ? raw : await inflate(raw);
    if (content.length !== size || crc32(content) !== crc) throw new Error(`${name} does not have its CRC-32`);
    files.set(name, content);
    at += 46 + nameSize + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
  return files;
}

async function inflate(raw: Uint8Array): Promise<Uint8Array> {
  const stream = new Blob([raw as Uint8Array<ArrayBuffer>]).stream().pipeThrough(new DecompressionStream('deflate-raw'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function npy(bytes: Uint8Array): NpyArray {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0) !== 0x934e554d || view.getUint16(4) !== 0x5059) throw new Error('an array without its mark');
  const long = view.getUint8(6) > 1, headSize = long ? view.getUint32(8, true) : view.getUint16(8, true), start = long ? 12 : 10;
  const head = new TextDecoder('latin1').decode(bytes.subarray(start, start + headSize));
  const descr = /'descr': '([^']*)'/.exec(head)?.[1] ?? 'objects', kind = KINDS[descr];
  const shape = /'shape': \(([^)]*)\)/.exec(head)?.[1].split(',').filter(s => s.trim()).map(Number);
  if (kind === undefined || shape === undefined) throw new Error(`values of kind ${descr}`);
  if (!head.includes("'fortran_order': False") && shape.length > 1) throw new Error('values column by column');
  const [dtype, size, read] = kind, body = bytes.slice(start + headSize), count = shape.reduce((a, b) => a * b, 1);
  if (body.length !== count * size) throw new Error(`${body.length} bytes for ${count} values of ${dtype}`);
  return {dtype, shape, data: read(body.buffer)};
}

/** A number of IEEE 754 binary16. */
function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
