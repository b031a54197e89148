/** Packed codes (layout: `delf_edge/quantization/packed_codes.py`), and the words of descriptors. */

import type {Codebook} from '../bundle/codebook.js';
import type {Kernels} from '../kernels.js';

const HEADER = 16, STEPS = 4095, VERSION = 1;

/** The sizes that all codes of one database share. */
export interface CodeLayout {
  readonly codeSize: number;
  readonly globalDim: number;
  readonly nWords: number;
}

/** The stored form of an image's N features, the best first. */
export interface Codes {
  readonly n: number;
  /** (N, 2), pixels of the image that has this width and height. */
  readonly keypoints: Float32Array;
  /** (N,) */
  readonly words: Uint16Array;
  /** (N, M) */
  readonly codes: Uint8Array;
  /** (G,) */
  readonly global: Int8Array;
  readonly width: number;
  readonly height: number;
}

/**
 * Codes from their packed form.
 *
 * @throws RangeError the bytes are no packed form of this layout; the message shows both.
 */
export function unpackCodes(blob: Uint8Array, layout: CodeLayout): Codes {
  if (blob.length < HEADER) throw new RangeError(`${blob.length} bytes are too few for packed codes`);
  const view = new DataView(blob.buffer, blob.byteOffset, blob.byteLength), {codeSize, globalDim, nWords} = layout;
  const [version, M, G] = [view.getUint8(0), view.getUint8(1), view.getUint16(2, true)];
  const [n, width, height] = [view.getUint32(4, true), view.getUint32(8, true), view.getUint32(12, true)];
  if (version !== VERSION || M !== codeSize || G !== globalDim) {
    throw new RangeError(
      `packed codes of version ${version} with M=${M}, G=${G}; this database has version ${VERSION} with M=${codeSize}, G=${globalDim}`,
    );
  }
  const step = 5 + M, start = HEADER + G;
  if (blob.length !== start + n * step) throw new RangeError(`${blob.length} bytes do not hold ${n} packed features`);
  const side = Math.max(width, height, 1) / STEPS;
  const keypoints = new Float32Array(2 * n), words = new Uint16Array(n), codes = new Uint8Array(n * M);
  for (let i = 0, at = start; i < n; i++, at += step) {
    const middle = blob[at + 1];
    keypoints[2 * i] = (blob[at] | ((middle & 15) << 8)) * side;
    keypoints[2 * i + 1] = ((middle >> 4) | (blob[at + 2] << 4)) * side;
    words[i] = blob[at + 3] | (blob[at + 4] << 8);
    if (words[i] >= nWords) throw new RangeError(`word ${words[i]} of packed codes; the codebook has ${nWords} words`);
    codes.set(blob.subarray(at + 5, at + step), i * M);
  }
  return {n, keypoints, words, codes, global: new Int8Array(blob.slice(HEADER, start).buffer), width, height};
}

/** A codebook in the memory of the kernels. */
export class Quantizer {
  readonly pq: number;
  private readonly centroids: number;
  private readonly half: number;
  private readonly turnedCentroids: number;

  constructor(private readonly kernels: Kernels, readonly codebook: Codebook) {
    const {D, K, centroids, rotation, pq} = codebook;
    this.centroids = kernels.put(centroids);
    const half = new Float32Array(K);
    for (let k = 0, j = 0; k < K; k++) {
      let sum = 0;
      for (let i = 0; i < D; i++, j++) sum += centroids[j] * centroids[j];
      half[k] = 0.5 * Math.fround(sum);
    }
    this.half = kernels.put(half);
    this.pq = kernels.put(pq);
    this.turnedCentroids = kernels.put(kernels.products(centroids, K, rotation, D, D));
  }

  /** The P nearest words of each descriptor by L2, and their inner products: (n, P) each. Every centroid is compared. */
  assign(descriptors: Float32Array, n: number, P: number): {words: Int32Array; similarity: Float32Array} {
    const {kernels, codebook: {D, K}} = this;
    return kernels.during(() => {
      const rows = 64, query = kernels.put(descriptors), product = kernels.room(4 * rows * K), values = kernels.room(4 * P);
      const words = kernels.room(4 * n * P), similarity = kernels.room(4 * n * P);
      for (let i = 0; i < n; i += rows) { // some at a time: the product stays in the cache
        const m = Math.min(rows, n - i);
        kernels.loops.products(query + 4 * i * D, m, this.centroids, K, D, product);
        kernels.loops.nearest(product, this.half, m, K, P, words + 4 * i * P, similarity + 4 * i * P, values);
      }
      return {words: kernels.ints(words, n * P).slice(), similarity: kernels.floats(similarity, n * P).slice()};
    });
  }

  /** R d for each descriptor. */
  turn(descriptors: Float32Array, n: number): Float32Array {
    const {D, rotation} = this.codebook;
    return this.kernels.products(descriptors, n, rotation, D, D);
  }

  /** Writes unit descriptors (N, D), turned by R, of stored codes to an address of the kernels. */
  decode(codes: Codes, out: number): void {
    const {kernels, codebook: {M, D}} = this;
    kernels.during(() => {
      const words = kernels.put(codes.words), own = kernels.put(codes.codes);
      kernels.loops.decode(this.turnedCentroids, words, this.pq, own, codes.n, M, D / M, out);
    });
  }
}

/** A global descriptor (int8) as float32 of unit L2; zeros stay zeros. */
export function unitGlobal(code: Int8Array): Float32Array {
  let sum = 0;
  for (const v of code) sum += v * v;
  const norm = sum > 0 ? 1 / Math.sqrt(sum) : 0;
  return Float32Array.from(code, v => v * norm);
}
