/** The inner loops as WebAssembly (`kernels/kernels.ts`) and their memory. The only door to both. */

import module from '../build/kernels.wasm';
import {EngineError} from './errors.js';
import {messageOf} from './files/fetch.js';

/** The functions of `kernels/kernels.ts`; numbers are addresses and counts. */
interface Loops {
  readonly memory: WebAssembly.Memory;
  heapBase(): number;
  products(a: number, n: number, b: number, k: number, d: number, out: number): void;
  nearest(product: number, half: number, n: number, k: number, p: number, words: number, similarity: number, values: number): void;
  table(query: number, pq: number, m: number, d: number, out: number): void;
  scan(
    codes: number, starts: number, words: number, base: number, p: number, tables: number, m: number, least: number,
    scores: number, features: number,
  ): number;
  kthLargest(floats: number, n: number, k: number, values: number): number;
  decode(centroids: number, words: number, pq: number, codes: number, n: number, m: number, d: number, out: number): void;
  best(product: number, n: number, k: number, columns: number, values: number, most: number): void;
  costs(maps: number, h: number, points: number, p: number, limit: number, out: number): void;
}

type Array32 = Float32Array | Int32Array | Uint32Array | Uint16Array | Uint8Array;

/**
 * Memory in two parts: what is put there for good (`keep`), and what a call needs until it ends (`during`). Views are
 * valid until the next allocation: the memory may grow and move.
 */
export class Kernels {
  private top: number;

  private constructor(readonly loops: Loops) {
    this.top = (loops.heapBase() + 15) & ~15;
  }

  /** @throws EngineError WebAssembly is not allowed here, or has no vector instructions. */
  static async load(): Promise<Kernels> {
    try {
      const {instance} = await WebAssembly.instantiate(module, {});
      return new Kernels(instance.exports as unknown as Loops);
    } catch (e) {
      throw new EngineError(
        `WebAssembly cannot be used here (${messageOf(e)}); allow 'wasm-unsafe-eval' in the page's policy, or update the browser`,
      );
    }
  }

  /** Bytes of memory in use or reserved. */
  get bytes(): number {
    return this.loops.memory.buffer.byteLength;
  }

  /** The address of `bytes` of new memory. */
  room(bytes: number): number {
    const at = this.top;
    this.top = (at + bytes + 15) & ~15;
    const missing = this.top - this.loops.memory.buffer.byteLength;
    if (missing > 0) {
      try {
        this.loops.memory.grow(Math.ceil(Math.max(missing, 1 << 20) / 65536));
      } catch {
        throw new EngineError(`no memory for ${bytes} bytes more; close other pages`);
      }
    }
    return at;
  }

  /** The address of a copy of an array. */
  put(array: Array32): number {
    const at = this.room(array.byteLength);
    new Uint8Array(this.loops.memory.buffer, at, array.byteLength).set(
      new Uint8Array(array.buffer, array.byteOffset, array.byteLength),
    );
    return at;
  }

  floats(at: number, n: number): Float32Array {
    return new Float32Array(this.loops.memory.buffer, at, n);
  }

  ints(at: number, n: number): Int32Array {
    return new Int32Array(this.loops.memory.buffer, at, n);
  }

  /** Runs something and takes back the memory that was given out meanwhile. */
  during<T>(run: () => T): T {
    const top = this.top;
    try {
      return run();
    } finally {
      this.top = top;
    }
  }

  /** Inner products of the rows of a (n, d) and b (k, d): (n, k), a copy. */
  products(a: Float32Array, n: number, b: Float32Array, k: number, d: number): Float32Array {
    return this.during(() => {
      const out = this.room(4 * n * k);
      this.loops.products(this.put(a), n, this.put(b), k, d, out);
      return this.floats(out, n * k).slice();
    });
  }
}
