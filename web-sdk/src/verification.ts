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
  const points = centred(source, target, P), maps = hypotheses(points);
  let most = 0, best: Uint8Array = nothing.inliers, bestMap: AffineMap = [];
  for (const chosen of mostPromising(kernels, maps, points, tolerance)) {
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
function plausible([a0, a1, , b0, b1]: AffineMap): boolean {
  // In the order of a map of row vectors: [[a0, b0], [a1, b1]].
  const det = a0 * b1 - b0 * a1, norm = a0 * a0 + b0 * b0 + a1 * a1 + b1 * b1, scale = Math.sqrt(det);
  return det > 0 && scale <= MAX_SCALE && scale >= 1 / MAX_SCALE && norm / det <= SQUEEZE;
}

/** Half of the maps come from three pairs (affine), half from two (rotation, one scale, shift). */
function hypotheses(p: Points): AffineMap[] {
  const {n, x, y, u, v} = p, random = draws(), maps: AffineMap[] = [];
  let extent = 0, far = 0;
  for (let i = 0; i < n; i++) {
    extent = Math.max(extent, Math.abs(x[i]), Math.abs(y[i]));
    far = Math.max(far, x[i] * x[i] + y[i] * y[i]);
  }
  const leastArea = 1e-4 * (extent * extent) + 1e-9, leastSquare = 1e-4 * far + 1e-18;
  for (let h = 0; h < HYPOTHESES; h++) {
    const a = Math.trunc(random[3 * h] * n);
    let b = a + 1 + Math.trunc(random[3 * h + 1] * (n - 1));
    if (b >= n) b -= n;
    let c = Math.trunc(random[3 * h + 2] * (n - 2));
    if (c >= Math.min(a, b)) c++;
    if (c >= Math.max(a, b)) c++;
    let map: AffineMap;
    if (h < Math.trunc((HYPOTHESES + 1) / 2)) {
      const ux = x[b] - x[a], uy = y[b] - y[a], vx = x[c] - x[a], vy = y[c] - y[a], det = ux * vy - uy * vx;
      if (!(Math.abs(det) > leastArea)) continue;
      const row = (goal: Float64Array): number[] => {
        const s = goal[b] - goal[a], t = goal[c] - goal[a], c0 = (vy * s - uy * t) / det, c1 = (ux * t - vx * s) / det;
        return [c0, c1, goal[a] - (x[a] * c0 + y[a] * c1)];
      };
      map = [...row(u), ...row(v)];
    } else {
      const dx = x[b] - x[a], dy = y[b] - y[a], square = dx * dx + dy * dy;
      if (!(square > leastSquare)) continue;
      const du = u[b] - u[a], dv = v[b] - v[a], cos = (dx * du + dy * dv) / square, sin = (dx * dv - dy * du) / square;
      map = [cos, -sin, u[a] - (cos * x[a] - sin * y[a]), sin, cos, v[a] - (sin * x[a] + cos * y[a])];
    }
    if (plausible(map)) maps.push(map);
  }
  return maps;
}

/** Inliers of the maps of least truncated cost, the best first, all in 32-bit floats. */
function mostPromising(kernels: Kernels, maps: readonly AffineMap[], p: Points, tolerance: number): Uint8Array[] {
  const H = maps.length, wide = Math.ceil(H / 4) * 4, limit = Math.fround(tolerance * tolerance), flat = new Float32Array(6 * wide);
  if (!H) return [];
  maps.forEach((map, h) => map.forEach((value, i) => (flat[i * wide + h] = value)));
  const points = Float32Array.from({length: 4 * p.n}, (_, i) => [p.x, p.y, p.u, p.v][i & 3][i >> 2]);
  const cost = kernels.during(() => {
    const out = kernels.room(4 * wide);
    kernels.loops.costs(kernels.put(flat), wide, kernels.put(points), p.n, limit, out);
    return kernels.floats(out, H).slice();
  });
  const order = Array.from(cost, (_, h) => h).sort((s, t) => cost[s] - cost[t] || s - t).slice(0, REFINED), f = Math.fround;
  return order.map(h => {
    const at = (i: number) => flat[i * wide + h], found = new Uint8Array(p.n);
    for (let i = 0; i < p.n; i++) {
      const [x, y, u, v] = points.subarray(4 * i, 4 * i + 4);
      const r = f(f(f(f(x * at(0)) + f(y * at(1))) + at(2)) - u), s = f(f(f(f(x * at(3)) + f(y * at(4))) + at(5)) - v);
      found[i] = Number(f(f(r * r) + f(s * s)) <= limit);
    }
    return found;
  });
}

/** Least squares on the inliers, inliers of the result, and again. */
function refine(chosen: Uint8Array, p: Points, tolerance: number): {n: number; inliers: Uint8Array; map: AffineMap} {
  let best: {n: number; inliers: Uint8Array; map: AffineMap} = {n: 0, inliers: new Uint8Array(p.n), map: []};
  for (let round = 0; round < REFINEMENTS; round++) {
    const map = leastSquares(chosen, p);
    if (map === null || !plausible(map)) break;
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
