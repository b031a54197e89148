/** The arrays of codebook.npz and cohort.npz, with the checks of `delf_edge/bundle/bundle.py` and `cohort.py`. */

import {BundleError} from '../errors.js';
import type {NpyArray} from '../files/npz.js';
import type {Manifest} from './manifest.js';

/** Python's `types.Codebook`: C channels, D dimensions, K words, M bytes a code, Cg and G of the global descriptor. */
export interface Codebook {
  readonly C: number;
  readonly D: number;
  readonly K: number;
  readonly M: number;
  readonly Cg: number;
  readonly G: number;
  /** (C,) */
  readonly pcaMean: Float32Array;
  /** (D, C) */
  readonly pcaBasis: Float32Array;
  /** (K, D) */
  readonly centroids: Float32Array;
  /** (M, 256, D / M) */
  readonly pq: Float32Array;
  /** (D, D) */
  readonly rotation: Float32Array;
  /** (Cg,) */
  readonly globalMean: Float32Array;
  /** (G, Cg) */
  readonly globalBasis: Float32Array;
}

/** Coded photos of nobody's places. */
export interface Cohort {
  readonly counts: Uint16Array;
  readonly words: Uint16Array;
  readonly codes: Uint8Array;
  readonly globalCodes: Int8Array;
}

type Arrays = ReadonlyMap<string, NpyArray>;

/** @throws BundleError an array is missing, or does not fit the others or the network. */
export function readCodebook(arrays: Arrays, manifest: Manifest): Codebook {
  const [pcaMean, pcaBasis, centroids, pq, rotation, globalMean, globalBasis] = [
    'pca_mean', 'pca_basis', 'centroids', 'pq', 'rotation', 'global_mean', 'global_basis',
  ].map(name => ({name, ...floats(arrays, name)}));
  const C = manifest.network.channels, Cg = manifest.tail === null ? C : manifest.tail.channels;
  const D = pcaBasis.shape[0], K = centroids.shape[0], M = pq.shape[0], G = globalBasis.shape[0];
  const expected: [typeof pq, number[]][] = [
    [pcaMean, [C]], [pcaBasis, [D, C]], [centroids, [K, D]], [pq, [M, 256, Math.floor(D / Math.max(M, 1))]],
    [rotation, [D, D]], [globalMean, [Cg]], [globalBasis, [G, Cg]],
  ];
  for (const [array, shape] of expected) {
    if (String(array.shape) !== String(shape)) {
      throw new BundleError(
        `codebook: ${array.name} has shape (${array.shape.join(', ')}), expected (${shape.join(', ')}) ` +
          `(C=${C}, D=${D}, K=${K}, M=${M}, Cg=${Cg}, G=${G}); fit the codebook for this network`,
      );
    }
  }
  if (!D || !M || D % M || K < 1 || K > 65536) {
    throw new BundleError(`codebook: D=${D} must be a multiple of M=${M}, and K=${K} between 1 and 65536`);
  }
  return {
    C, D, K, M, Cg, G,
    pcaMean: pcaMean.data, pcaBasis: pcaBasis.data, centroids: centroids.data, pq: pq.data, rotation: rotation.data,
    globalMean: globalMean.data, globalBasis: globalBasis.data,
  };
}

/** One array as float32. In the file it is float32, float16, or int8 with `<name>_scale`, a factor for each row. */
function floats(arrays: Arrays, name: string): {shape: readonly number[]; data: Float32Array} {
  const array = arrays.get(name);
  if (array === undefined) {
    throw new BundleError(`codebook: array ${name} is missing; it has ${[...arrays.keys()].sort().join(', ')}`);
  }
  let data: Float32Array;
  if (array.dtype === 'int8') {
    const scale = arrays.get(`${name}_scale`), width = array.shape.at(-1) ?? 1;
    if (scale === undefined) throw new BundleError(`codebook: ${name} is int8 without ${name}_scale; pack the bundle again`);
    if (scale.data.length * width !== array.data.length) {
      throw new BundleError(`codebook: ${name}_scale has shape (${scale.shape.join(', ')}); pack the bundle again`);
    }
    data = new Float32Array(array.data.length);
    for (let i = 0; i < data.length; i++) data[i] = Number(array.data[i]) * Math.fround(Number(scale.data[Math.floor(i / width)]));
  } else if (array.dtype === 'float32' || array.dtype === 'float16') data = array.data as Float32Array;
  else throw new BundleError(`codebook: ${name} is ${array.dtype}; expected float32, float16 or int8`);
  if (!data.every(Number.isFinite)) {
    throw new BundleError(`codebook: ${name} contains values that are not finite; fit the codebook again`);
  }
  return {shape: array.shape, data};
}

/** @throws BundleError an array is missing, of another type or shape, or a word is out of range. */
export function readCohort(arrays: Arrays, codebook: Codebook): Cohort {
  const get = (name: string): NpyArray => {
    const array = arrays.get(name);
    if (array === undefined) throw new BundleError(`cohort: array ${name} is missing; pack the bundle again`);
    return array;
  };
  const counts = get('counts');
  const total = counts.dtype === 'uint16' ? (counts.data as Uint16Array).reduce((a, b) => a + b, 0) : -1;
  const expected: [string, string, number[]][] = [
    ['counts', 'uint16', [counts.data.length]],
    ['words', 'uint16', [total]],
    ['codes', 'uint8', [total, codebook.M]],
    ['global_codes', 'int8', [counts.data.length, codebook.G]],
  ];
  for (const [name, dtype, shape] of expected) {
    const array = get(name);
    if (array.dtype !== dtype || String(array.shape) !== String(shape)) {
      throw new BundleError(
        `cohort: ${name} is ${array.dtype} (${array.shape.join(', ')}), expected ${dtype} (${shape.join(', ')}); ` +
          'code the photos with this codebook',
      );
    }
  }
  const words = get('words').data as Uint16Array, most = words.reduce((a, b) => Math.max(a, b), -1);
  if (most >= codebook.K) throw new BundleError(`cohort: word ${most}, but the codebook has ${codebook.K}`);
  return {
    counts: counts.data as Uint16Array,
    words,
    codes: get('codes').data as Uint8Array,
    globalCodes: get('global_codes').data as Int8Array,
  };
}
