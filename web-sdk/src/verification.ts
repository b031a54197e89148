/**
 * Does the geometry agree? Mutual nearest neighbours, then an affine RANSAC with a fixed seed; the same samples, order and
 * arithmetic as `delf_edge/verification.py` and `_native.cpp`.
 */

import type {Kernels} from './kernels.js';
import {uniform} from './random.js';

const TOLERANCE = 20 / 1024, HYPOTHESES = 1000, REFINED = 8, MAX_SCALE = 8, MAX_ANISOTROPY = 4, REFINEMENTS = 4, SEED = 0;
const MIN_SIMILARITY = 0, SQUEEZE = MAX_ANISOTROPY + 1 / MAX_ANISOTROPY;

/** Pairs (query feature, stored feature), flat, ascending by query feature. */
export type Matches = Int32Array;

/** The check of one candidate. */
export interface Verification {
  readonly matches: Matches;
  /** Which of the P matches agree with the map. */
  readonly inliers: Uint8Array;
  readonly nInliers: number;
  /** Affine map from query pixels to stored pixels, row by row (2 x 3); NaN where there is none. */
  readonly transform: Float64Array;
}

/** [a0, a1, a2, b0, b1, b2]: x' = a0 x + a1 y + a2, y' = b0 x + b1 y + b2. */
type AffineMap = readonly number[];

let drawn: Float64Array | null = null;

/** float64 (1000, 3), the same draws for every candidate. */
export function draws(): Float64Array {
  drawn ??= uniform(3 * HYPOTHESES, SEED);
  return drawn;
}

/**
 * Mutual nearest neighbours by inner product, of rows in the kernels' memory: query (n, d), stored (k, d).
 *
 * Of equal columns and rows the first one counts.
 */
export function match(kernels: Kernels, query: number, n: number, stored: number, k: number, d: number): Matches {
  if (!n || !k) return new Int32Array(0);
  return kernels.during(() => {
    const product = kernels.room(4 * n * k), columns = kernels.room(4 * n), values = kernels.room(4 * n), most = kernels.room(4 * k);
    kernels.loops.products(query, n, stored, k, d, product);
    kernels.loops.best(product, n, k, columns, values, most);
    const forth = kernels.ints(columns, n), value = kernels.floats(values, n), largest = kernels.floats(most, k);
    const taken = new Uint8Array(k), pairs: number[] = [];
    for (let i = 0; i < n; i++) {
      const j = forth[i];
      if (value[i] !== largest[j] || taken[j]) continue;
      taken[j] = 1;
      if (value[i] >= MIN_SIMILARITY) pairs.push(i, j);
    }
    return Int32Array.from(pairs);
  });
}

/** The map that most pairs of points agree with; `source` and `target` (P, 2) pixels, `tolerance` pixels of `target`. */
export function estimateAffine(
  kernels: Kernels, source: Float32Array, target: Float32Array, tolerance: number,
): {transform: Float64Array; inliers: Uint8Array; nInliers: number} {
  const P = source.length / 2, nothing = {transform: new Float64Array(6).fill(NaN), inliers: new Uint8Array(P), nInliers: 0};
  if (P < 3) return nothing;
  const points = centred(source, target, P);
  let most = 0, best: Uint8Array = nothing.inliers, bestMap: AffineMap = [];
  for (const chosen of mostPromising(kernels, points, tolerance)) {
    const refined = refine(chosen, points, tolerance);
    if (refined.n <= most) continue;
    most = refined.n;
    best = refined.inliers;
    bestMap = refined.map;
  }
  if (!most) return nothing;
  const [a0, a1, a2, b0, b1, b2] = bestMap, {cx, cy} = points;
  const transform = Float64Array.of(a0, a1, a2 - (a0 * cx + a1 * cy), b0, b1, b2 - (b0 * cx + b1 * cy));
  return {transform, inliers: best, nInliers: most};
}

/** Largest residual of an inlier, in pixels of a stored image. */
export function toleranceOf(width: number, height: number): number {
  return TOLERANCE * Math.max(width, height, 1);
}

/** Pairs of points, the first of each centred. */
interface Points {
  readonly n: number;
  readonly x: Float64Array;
  readonly y: Float64Array;
  readonly u: Float64Array;
  readonly v: Float64Array;
  readonly cx: number;
  readonly cy: number;
}

function centred(source: Float32Array, target: Float32Array, n: number): Points {
  let cx = 0, cy = 0;
  for (let i = 0; i < n; i++) {
    cx += source[2 * i];
    cy += source[2 * i + 1];
  }
  cx /= n;
  cy /= n;
  const take = (from: Float32Array, k: number, less: number) => Float64Array.from({length: n}, (_, i) => from[2 * i + k] - less);
  return {n, x: take(source, 0, cx), y: take(source, 1, cy), u: take(target, 0, 0), v: take(target, 1, 0), cx, cy};
}

/** No mirror image, no extreme scale, no extreme squeeze. */
function plausible(a0: number, a1: number, b0: number, b1: number): boolean {
  // In the order of a map of row vectors: [[a0, b0], [a1, b1]].
  const det = a0 * b1 - b0 * a1, norm = a0 * a0 + b0 * b0 + a1 * a1 + b1 * b1, scale = Math.sqrt(det);
  return det > 0 && scale <= MAX_SCALE && scale >= 1 / MAX_SCALE && norm / det <= SQUEEZE;
}

/** Half of the maps come from three pairs (affine), half from two (rotation, one scale, shift): 32-bit (6, wide), and how many. */
function hypotheses(p: Points): {maps: Float32Array; count: number; wide: number} {
  const {n, x, y, u, v} = p, random = draws(), wide = HYPOTHESES, maps = new Float32Array(6 * wide);
  let extent = 0, far = 0, count = 0;
  for (let i = 0; i < n; i++) {
    extent = Math.max(extent, Math.abs(x[i]), Math.abs(y[i]));
    far = Math.max(far, x[i] * x[i] + y[i] * y[i]);
  }
  const leastArea = 1e-4 * (extent * extent) + 1e-9, leastSquare = 1e-4 * far + 1e-18;
  const keep = (a0: number, a1: number, a2: number, b0: number, b1: number, b2: number): void => {
    if (!plausible(a0, a1, b0, b1)) return;
    maps[count] = a0;
    maps[wide + count] = a1;
    maps[2 * wide + count] = a2;
    maps[3 * wide + count] = b0;
    maps[4 * wide + count] = b1;
    maps[5 * wide + count] = b2;
    count++;
  };
  for (let h = 0; h < HYPOTHESES; h++) {
    const a = Math.trunc(random[3 * h] * n);
    let b = a + 1 + Math.trunc(random[3 * h + 1] * (n - 1));
    if (b >= n) b -= n;
    let c = Math.trunc(random[3 * h + 2] * (n - 2));
    if (c >= Math.min(a, b)) c++;
    if (c >= Math.max(a, b)) c++;
    const dx = x[b] - x[a], dy = y[b] - y[a], du = u[b] - u[a], dv = v[b] - v[a];
    if (h < Math.trunc((HYPOTHESES + 1) / 2)) {
      const ex = x[c] - x[a], ey = y[c] - y[a], eu = u[c] - u[a], ev = v[c] - v[a], det = dx * ey - dy * ex;
      if (!(Math.abs(det) > leastArea)) continue;
      const a0 = (ey * du - dy * eu) / det, a1 = (dx * eu - ex * du) / det;
      const b0 = (ey * dv - dy * ev) / det, b1 = (dx * ev - ex * dv) / det;
      keep(a0, a1, u[a] - (x[a] * a0 + y[a] * a1), b0, b1, v[a] - (x[a] * b0 + y[a] * b1));
    } else {
      const square = dx * dx + dy * dy;
      if (!(square > leastSquare)) continue;
      const cos = (dx * du + dy * dv) / square, sin = (dx * dv - dy * du) / square;
      keep(cos, -sin, u[a] - (cos * x[a] - sin * y[a]), sin, cos, v[a] - (sin * x[a] + cos * y[a]));
    }
  }
  return {maps, count, wide};
}

/** Inliers of the maps of least truncated cost, the best first, all in 32-bit floats. */
function mostPromising(kernels: Kernels, p: Points, tolerance: number): Uint8Array[] {
  const {maps, count, wide} = hypotheses(p), limit = Math.fround(tolerance * tolerance), f = Math.fround;
  if (!count) return [];
  const points = new Float32Array(4 * p.n);
  for (let i = 0; i < p.n; i++) {
    points[4 * i] = p.x[i];
    points[4 * i + 1] = p.y[i];
    points[4 * i + 2] = p.u[i];
    points[4 * i + 3] = p.v[i];
  }
  const cost = kernels.during(() => {
    const out = kernels.room(4 * wide);
    kernels.loops.costs(kernels.put(maps), wide, kernels.put(points), p.n, limit, out);
    return kernels.floats(out, count).slice();
  });
  return leastOf(cost, REFINED).map(h => {
    const [a0, a1, a2, b0, b1, b2] = [0, 1, 2, 3, 4, 5].map(i => maps[i * wide + h]), found = new Uint8Array(p.n);
    for (let i = 0; i < p.n; i++) {
      const x = points[4 * i], y = points[4 * i + 1];
      const r = f(f(f(f(x * a0) + f(y * a1)) + a2) - points[4 * i + 2]), s = f(f(f(f(x * b0) + f(y * b1)) + b2) - points[4 * i + 3]);
      found[i] = Number(f(f(r * r) + f(s * s)) <= limit);
    }
    return found;
  });
}

/** Places of the k least values, the least first, of equal ones the first. */
function leastOf(values: Float32Array, k: number): number[] {
  const found: number[] = [];
  values.forEach((value, i) => {
    if (found.length === k && !(value < values[found[k - 1]])) return;
    if (found.length === k) found.pop();
    let at = found.length;
    while (at > 0 && value < values[found[at - 1]]) at--;
    found.splice(at, 0, i);
  });
  return found;
}

/** Least squares on the inliers, inliers of the result, and again. */
function refine(chosen: Uint8Array, p: Points, tolerance: number): {n: number; inliers: Uint8Array; map: AffineMap} {
  let best: {n: number; inliers: Uint8Array; map: AffineMap} = {n: 0, inliers: new Uint8Array(p.n), map: []};
  for (let round = 0; round < REFINEMENTS; round++) {
    const map = leastSquares(chosen, p);
    if (map === null || !plausible(map[0], map[1], map[3], map[4])) break;
    const [a0, a1, a2, b0, b1, b2] = map, agree = new Uint8Array(p.n);
    let n = 0;
    for (let i = 0; i < p.n; i++) {
      const u = p.x[i] * a0 + p.y[i] * a1 + a2 - p.u[i], v = p.x[i] * b0 + p.y[i] * b1 + b2 - p.v[i];
      n += agree[i] = Number(u * u + v * v <= tolerance * tolerance);
    }
    if (n <= Math.max(best.n, 2)) break;
    best = {n, inliers: agree, map};
    chosen = agree;
  }
  return best;
}

/** The affine map of chosen pairs in closed form; null where they lie on a line. */
function leastSquares(chosen: Uint8Array, p: Points): AffineMap | null {
  const m = new Float64Array(12);
  let count = 0;
  for (let i = 0; i < p.n; i++) {
    if (!chosen[i]) continue;
    const x = p.x[i], y = p.y[i], u = p.u[i], v = p.v[i];
    m[0] += x; m[1] += y; m[2] += u; m[3] += v;
    m[4] += x * x; m[5] += x * y; m[6] += y * x; m[7] += y * y;
    m[8] += x * u; m[9] += x * v; m[10] += y * u; m[11] += y * v;
    count++;
  }
  for (let k = 0; k < 12; k++) m[k] /= Math.max(count, 1);
  const a = m[4] - m[0] * m[0], b = m[5] - m[0] * m[1], d = m[7] - m[1] * m[1], det = a * d - b * b, trace = a + d;
  if (det <= 1e-9 * (trace * trace)) return null;
  const across = [[m[8] - m[0] * m[2], m[9] - m[0] * m[3]], [m[10] - m[1] * m[2], m[11] - m[1] * m[3]]];
  return [0, 1].flatMap(j => {
    const c0 = (d * across[0][j] - b * across[1][j]) / det, c1 = (a * across[1][j] - b * across[0][j]) / det;
    return [c0, c1, m[2 + j] - (m[0] * c0 + m[1] * c1)];
  });
}
