/** What the network says becomes `Features`, as `delf_edge/features/extractor.py`: choice, projection, global descriptor. */

import type {Codebook} from '../bundle/codebook.js';
import type {Manifest} from '../bundle/manifest.js';
import type {Picture} from '../images/resize.js';
import type {Kernels} from '../kernels.js';
import type {ExtractOptions} from './options.js';

/** N features of an image, the best first, and its global descriptor. */
export interface Features {
  readonly n: number;
  /** (N, 2), image pixels. */
  readonly keypoints: Float32Array;
  /** (N,) */
  readonly scores: Float32Array;
  /** (N, D), unit L2. */
  readonly descriptors: Float32Array;
  /** (G,), unit L2; zeros where there is none. */
  readonly global: Float32Array;
  /** Size that the keypoints refer to. */
  readonly width: number;
  readonly height: number;
}

/** What the network said about one level: a map of (h, w, C), and attention (h, w) where the bundle selects by it. */
export interface LevelMap {
  readonly width: number;
  readonly height: number;
  readonly cells: Float32Array;
  readonly attention: Float32Array | null;
  readonly scaleX: number;
  readonly scaleY: number;
}

/** The chosen cells: keypoints, scores, and the raw features (N, C). */
export interface Selection {
  readonly n: number;
  readonly keypoints: Float32Array;
  readonly scores: Float32Array;
  readonly raw: Float32Array;
}

export function noFeatures(codebook: Codebook, image: Picture): Features {
  return {
    n: 0, keypoints: new Float32Array(0), scores: new Float32Array(0), descriptors: new Float32Array(0),
    global: new Float32Array(codebook.G), width: image.width, height: image.height,
  };
}

/** Largest standard deviation of a colour channel, as `cv2.meanStdDev`. */
export function contrast(image: Picture): number {
  const n = image.width * image.height;
  let most = 0;
  for (let c = 0; c < 3; c++) {
    let sum = 0, squares = 0;
    for (let i = c; i < image.data.length; i += 3) {
      sum += image.data[i];
      squares += image.data[i] * image.data[i];
    }
    const mean = sum / n;
    most = Math.max(most, Math.sqrt(Math.max(squares / n - mean * mean, 0)));
  }
  return most;
}

/** Scores of the cells of a level, float32 (h w): softplus of the attention, or the length of the feature. */
export function cellScores(map: LevelMap, channels: number): Float32Array {
  const {attention, cells} = map, n = map.width * map.height, scores = new Float32Array(n);
  for (let i = 0; i < n; i++) {
    if (attention !== null) scores[i] = Math.log1p(Math.exp(-Math.abs(attention[i]))) + Math.max(attention[i], 0);
    else {
      let sum = 0;
      for (let c = i * channels; c < (i + 1) * channels; c++) sum += cells[c] * cells[c];
      scores[i] = Math.sqrt(sum);
    }
  }
  return scores;
}

/** The best cells of all levels, the best first; of equal ones the larger level first, then row by row. */
export function select(
  maps: readonly LevelMap[], imageWidth: number, imageHeight: number, manifest: Manifest, options: ExtractOptions,
): Selection {
  const {stride, offset, channels} = manifest.network, xs: number[] = [], ys: number[] = [], scores: number[] = [];
  const level: number[] = [], cell: number[] = [];
  maps.forEach((map, number) => {
    const own = cellScores(map, channels), keep = options.nmsRadius >= 1 ? localMaxima(own, map, options.nmsRadius) : null;
    for (let i = 0; i < own.length; i++) {
      if (!(own[i] >= options.scoreThreshold) || (keep !== null && !keep[i])) continue;
      const x = (stride * (i % map.width) + offset + 0.5) / map.scaleX - 0.5;
      const y = (stride * Math.floor(i / map.width) + offset + 0.5) / map.scaleY - 0.5;
      if (x < -0.5 || x > imageWidth - 0.5 || y < -0.5 || y > imageHeight - 0.5) continue;
      xs.push(x);
      ys.push(y);
      scores.push(own[i]);
      level.push(number);
      cell.push(i);
    }
  });
  const order = scores.map((_, i) => i).sort((a, b) => scores[b] - scores[a] || a - b).slice(0, options.maxFeatures);
  const n = order.length, raw = new Float32Array(n * channels), keypoints = new Float32Array(2 * n);
  order.forEach((i, k) => {
    keypoints[2 * k] = xs[i];
    keypoints[2 * k + 1] = ys[i];
    raw.set(maps[level[i]].cells.subarray(cell[i] * channels, (cell[i] + 1) * channels), k * channels);
  });
  return {n, keypoints, scores: Float32Array.from(order, i => scores[i]), raw};
}

/** Which cells no cell within `radius` exceeds; of equal neighbours both stay. */
export function localMaxima(scores: Float32Array, {width, height}: {width: number; height: number}, radius: number): boolean[] {
  const r = Math.floor(radius), keep: boolean[] = [];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const own = scores[y * width + x];
      let stays = true;
      for (let dy = -r; dy <= r && stays; dy++) {
        for (let dx = -r; dx <= r && stays; dx++) {
          const u = x + dx, v = y + dy;
          if (dx * dx + dy * dy > radius * radius || u < 0 || v < 0 || u >= width || v >= height) continue;
          stays = scores[v * width + u] <= own;
        }
      }
      keep.push(stays);
    }
  }
  return keep;
}

/** Rows (n, d) scaled to unit L2 in place; a zero row stays zero. */
export function unitRows(rows: Float32Array, n: number, d: number): Float32Array {
  for (let i = 0; i < n; i++) {
    let sum = 0;
    for (let j = i * d; j < (i + 1) * d; j++) sum += rows[j] * rows[j];
    const norm = Math.fround(Math.max(Math.sqrt(sum), 1e-12));
    for (let j = i * d; j < (i + 1) * d; j++) rows[j] /= norm;
  }
  return rows;
}

/** Rows to unit L2, minus a mean, times a basis (k, d), to unit L2: (n, k). */
function projected(kernels: Kernels, rows: Float32Array, n: number, mean: Float32Array, basis: Float32Array, k: number): Float32Array {
  const d = mean.length, centred = unitRows(rows.slice(), n, d);
  for (let i = 0, j = 0; i < n; i++) for (let c = 0; c < d; c++, j++) centred[j] -= mean[c];
  return unitRows(kernels.products(centred, n, basis, k, d), n, k);
}

/** Network features (N, C) to descriptors (N, D). */
export function projectDescriptors(kernels: Kernels, codebook: Codebook, raw: Float32Array, n: number): Float32Array {
  return projected(kernels, raw, n, codebook.pcaMean, codebook.pcaBasis, codebook.D);
}

/** GeM over a map (cells, Cg), then whitening: (G,). */
export function poolGlobal(kernels: Kernels, codebook: Codebook, map: Float32Array, p: number): Float32Array {
  const {Cg, G} = codebook, cells = map.length / Cg, sums = new Float64Array(Cg);
  for (let i = 0, j = 0; i < cells; i++) {
    for (let c = 0; c < Cg; c++, j++) {
      const v = Math.max(map[j], 1e-6);
      sums[c] += p === 3 ? v * v * v : v ** p;
    }
  }
  const pooled = Float32Array.from(sums, sum => (sum / cells) ** (1 / p));
  return projected(kernels, pooled, 1, codebook.globalMean, codebook.globalBasis, G);
}

/** Which level's map the global descriptor is pooled from: the one whose longer side is nearest to `target` pixels. */
export function globalLevel(levels: readonly Picture[], target: number): number {
  const apart = levels.map(level => Math.abs(Math.log(Math.max(level.width, level.height) / target)));
  return apart.indexOf(Math.min(...apart));
}
