/**
 * The inner loops, in AssemblyScript, with vector instructions. Arguments are addresses in the module's memory; all floats
 * are 32 bits. `src/kernels.ts` is the only caller. The results are those of `delf_edge/_native.cpp`, where that has the
 * same loop; inner products are summed in another order than NumPy's.
 */

const BLOCK = 64; // rows of b that stay in the cache

export function heapBase(): usize {
  return __heap_base;
}

// @ts-ignore: decorator
@inline
function across(v: v128): f32 {
  return f32x4.extract_lane(v, 0) + f32x4.extract_lane(v, 1) + (f32x4.extract_lane(v, 2) + f32x4.extract_lane(v, 3));
}

/** The sums of the lanes of four vectors, each added up as `across` does. */
// @ts-ignore: decorator
@inline
function acrossFour(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = i32x4.shuffle(a, b, 0, 4, 1, 5), AB = i32x4.shuffle(a, b, 2, 6, 3, 7);
  const cd = i32x4.shuffle(c, d, 0, 4, 1, 5), CD = i32x4.shuffle(c, d, 2, 6, 3, 7);
  const first = i64x2.shuffle(ab, cd, 0, 2), second = i64x2.shuffle(ab, cd, 1, 3);
  const third = i64x2.shuffle(AB, CD, 0, 2), fourth = i64x2.shuffle(AB, CD, 1, 3);
  return f32x4.add(f32x4.add(first, second), f32x4.add(third, fourth));
}

/** out[i, j] = <a[i], b[j]> of rows (n, d) and (k, d). */
export function products(a: usize, n: i32, b: usize, k: i32, d: i32, out: usize): void {
  const row: usize = <usize>d << 2, line: usize = <usize>k << 2;
  for (let from = 0; from < k; from += BLOCK) {
    const to = min(from + BLOCK, k);
    let i = 0;
    for (; (d & 3) == 0 && i + 2 <= n; i += 2) {
      const a0 = a + <usize>i * row, a1 = a0 + row, o0 = out + <usize>i * line, o1 = o0 + line;
      let j = from;
      for (; j + 4 <= to; j += 4) {
        const b0 = b + <usize>j * row, b1 = b0 + row, b2 = b1 + row, b3 = b2 + row;
        let p0 = f32x4.splat(0), p1 = p0, p2 = p0, p3 = p0, q0 = p0, q1 = p0, q2 = p0, q3 = p0;
        for (let at: usize = 0; at < row; at += 16) {
          const x = v128.load(a0 + at), y = v128.load(a1 + at);
          const r0 = v128.load(b0 + at), r1 = v128.load(b1 + at), r2 = v128.load(b2 + at), r3 = v128.load(b3 + at);
          p0 = f32x4.add(p0, f32x4.mul(x, r0));
          p1 = f32x4.add(p1, f32x4.mul(x, r1));
          p2 = f32x4.add(p2, f32x4.mul(x, r2));
          p3 = f32x4.add(p3, f32x4.mul(x, r3));
          q0 = f32x4.add(q0, f32x4.mul(y, r0));
          q1 = f32x4.add(q1, f32x4.mul(y, r1));
          q2 = f32x4.add(q2, f32x4.mul(y, r2));
          q3 = f32x4.add(q3, f32x4.mul(y, r3));
        }
        const at: usize = <usize>j << 2;
        v128.store(o0 + at, acrossFour(p0, p1, p2, p3));
        v128.store(o1 + at, acrossFour(q0, q1, q2, q3));
      }
      for (; j < to; j++) {
        const b0 = b + <usize>j * row, at: usize = <usize>j << 2;
        store<f32>(o0 + at, dot(a0, b0, row));
        store<f32>(o1 + at, dot(a1, b0, row));
      }
    }
    for (; i < n; i++) {
      for (let j = from; j < to; j++) store<f32>(out + <usize>i * line + (<usize>j << 2), dot(a + <usize>i * row, b + <usize>j * row, row));
    }
  }
}

function dot(a: usize, b: usize, row: usize): f32 {
  let sum = f32x4.splat(0), at: usize = 0;
  for (; at + 16 <= row; at += 16) sum = f32x4.add(sum, f32x4.mul(v128.load(a + at), v128.load(b + at)));
  let all = across(sum);
  for (; at < row; at += 4) all += load<f32>(a + at) * load<f32>(b + at);
  return all;
}

/**
 * The p largest of product[i, w] - half[w] of every row (n, k), the largest first, of equal ones the lower w: words int32
 * (n, p) and the product there (n, p). `values` is room for p floats.
 */
export function nearest(product: usize, half: usize, n: i32, k: i32, p: i32, words: usize, similarity: usize, values: usize): void {
  const last = values + (<usize>(p - 1) << 2);
  for (let i = 0; i < n; i++) {
    const row = product + ((<usize>i * <usize>k) << 2), index = words + ((<usize>i * <usize>p) << 2);
    for (let j = 0; j < p; j++) {
      store<f32>(values + (<usize>j << 2), -f32.MAX_VALUE);
      store<i32>(index + (<usize>j << 2), 0);
    }
    let least: f32 = -f32.MAX_VALUE;
    for (let w = 0; w < k; w++) {
      // Four that are not among the largest are passed over together.
      while (w + 4 <= k && !v128.any_true(f32x4.gt(
        f32x4.sub(v128.load(row + (<usize>w << 2)), v128.load(half + (<usize>w << 2))), f32x4.splat(least),
      ))) w += 4;
      if (w >= k) break;
      const v = load<f32>(row + (<usize>w << 2)) - load<f32>(half + (<usize>w << 2));
      if (!(v > least)) continue;
      let at = p - 1;
      for (; at > 0 && load<f32>(values + (<usize>(at - 1) << 2)) < v; at--) {
        store<f32>(values + (<usize>at << 2), load<f32>(values + (<usize>(at - 1) << 2)));
        store<i32>(index + (<usize>at << 2), load<i32>(index + (<usize>(at - 1) << 2)));
      }
      store<f32>(values + (<usize>at << 2), v);
      store<i32>(index + (<usize>at << 2), w);
      least = load<f32>(last);
    }
    for (let j = 0; j < p; j++) {
      const w = load<i32>(index + (<usize>j << 2));
      store<f32>(similarity + ((<usize>i * <usize>p + <usize>j) << 2), load<f32>(row + (<usize>w << 2)));
    }
  }
}

/** table (m, 256): <piece c of the turned query, codeword> for pq (m, 256, d). */
export function table(query: usize, pq: usize, m: i32, d: i32, out: usize): void {
  const step: usize = <usize>d << 2;
  for (let i = 0; i < m; i++) {
    for (let c = 0; c < 256; c++) {
      store<f32>(out, dot(query + <usize>i * step, pq, step));
      pq += step;
      out += 4;
    }
  }
}

/**
 * Scores the features of one query's lists: those above `least` are written to `scores` and `features`. `starts` uint32
 * (K + 1); words int32 (p), base (p): <query, centroid>; table (m, 256). Returns how many.
 */
export function scan(
  codes: usize, starts: usize, words: usize, base: usize, p: i32, tables: usize, m: i32, least: f32, scores: usize, features: usize,
): i32 {
  let found = 0;
  for (let i = 0; i < p; i++) {
    const word = load<i32>(words + (<usize>i << 2)), first = load<f32>(base + (<usize>i << 2));
    const begin = load<u32>(starts + (<usize>word << 2)), end = load<u32>(starts + (<usize>word << 2), 4);
    for (let f = begin; f < end; f++) {
      const code = codes + <usize>f * <usize>m;
      let score = first, row = tables;
      for (let j = 0; j < m; j++) {
        score += load<f32>(row + (<usize>load<u8>(code + <usize>j) << 2));
        row += 1024;
      }
      store<f32>(scores + (<usize>found << 2), score);
      store<u32>(features + (<usize>found << 2), f);
      found += <i32>(score > least);
    }
  }
  return found;
}

/**
 * The k-th largest of n floats, by Hoare's quickselect. `values` is room for a copy.
 */
export function kthLargest(floats: usize, n: i32, k: i32, values: usize): f32 {
  memory.copy(values, floats, <usize>n << 2);
  let left = 0, right = n - 1;
  const wanted = k - 1;
  while (left < right) {
    const pivot = load<f32>(values + (<usize>((left + right) >>> 1) << 2));
    let i = left, j = right;
    while (i <= j) {
      while (load<f32>(values + (<usize>i << 2)) > pivot) i++;
      while (load<f32>(values + (<usize>j << 2)) < pivot) j--;
      if (i <= j) {
        const one = values + (<usize>i << 2), other = values + (<usize>j << 2), kept = load<f32>(one);
        store<f32>(one, load<f32>(other));
        store<f32>(other, kept);
        i++;
        j--;
      }
    }
    if (wanted <= j) right = j;
    else if (wanted >= i) left = i;
    else break;
  }
  return load<f32>(values + (<usize>wanted << 2));
}

/** Unit rows (n, m d): the turned centroid of a feature's word plus the codewords of its code. */
export function decode(centroids: usize, words: usize, pq: usize, codes: usize, n: i32, m: i32, d: i32, out: usize): void {
  const step: usize = <usize>d << 2, row = <usize>m * step;
  for (let i = 0; i < n; i++) {
    const centroid = centroids + <usize>load<u16>(words + (<usize>i << 1)) * row;
    for (let j = 0; j < m; j++) {
      const word = pq + (<usize>j * 256 + <usize>load<u8>(codes + <usize>j)) * step, to = <usize>j * step;
      let at: usize = 0;
      for (; at + 16 <= step; at += 16) v128.store(out + to + at, f32x4.add(v128.load(centroid + to + at), v128.load(word + at)));
      for (; at < step; at += 4) store<f32>(out + to + at, load<f32>(centroid + to + at) + load<f32>(word + at));
    }
    let sum = f32x4.splat(0), at: usize = 0;
    for (; at + 16 <= row; at += 16) sum = f32x4.add(sum, f32x4.mul(v128.load(out + at), v128.load(out + at)));
    let square = f32x4.extract_lane(sum, 0) + f32x4.extract_lane(sum, 1) + f32x4.extract_lane(sum, 2) + f32x4.extract_lane(sum, 3);
    for (; at < row; at += 4) square += load<f32>(out + at) * load<f32>(out + at);
    const norm = max(sqrt<f32>(square), <f32>1e-12);
    for (at = 0; at < row; at += 4) store<f32>(out + at, load<f32>(out + at) / norm);
    out += row;
    codes += <usize>m;
  }
}

/** Of a product (n, k): the column of each row's largest value int32 (n), that value (n), and each column's largest (k). */
export function best(product: usize, n: i32, k: i32, columns: usize, values: usize, most: usize): void {
  for (let j = 0; j < k; j++) store<f32>(most + (<usize>j << 2), -f32.MAX_VALUE);
  for (let i = 0; i < n; i++) {
    let value = -f32.MAX_VALUE, column = 0;
    for (let j = 0; j < k; j++) {
      const at: usize = <usize>j << 2, v = load<f32>(product + at);
      if (v > value) {
        value = v;
        column = j;
      }
      if (v > load<f32>(most + at)) store<f32>(most + at, v);
    }
    store<i32>(columns + (<usize>i << 2), column);
    store<f32>(values + (<usize>i << 2), value);
    product += <usize>k << 2;
  }
}

/**
 * Truncated squared residuals of h maps, summed over points in order (MSAC): maps (6, h) with rows a0, a1, a2, b0, b1, b2;
 * points (p, 4): x, y, to x, to y. h is a multiple of 4.
 */
export function costs(maps: usize, h: i32, points: usize, p: i32, limit: f32, out: usize): void {
  const row: usize = <usize>h << 2, most = f32x4.splat(limit);
  for (let at: usize = 0; at < row; at += 16) {
    const a0 = v128.load(maps + at), a1 = v128.load(maps + row + at), a2 = v128.load(maps + 2 * row + at);
    const b0 = v128.load(maps + 3 * row + at), b1 = v128.load(maps + 4 * row + at), b2 = v128.load(maps + 5 * row + at);
    let sum = f32x4.splat(0);
    for (let i = 0; i < p; i++) {
      const point = points + (<usize>i << 4);
      const x = v128.load32_splat(point), y = v128.load32_splat(point, 4);
      const u = f32x4.sub(f32x4.add(f32x4.add(f32x4.mul(x, a0), f32x4.mul(y, a1)), a2), v128.load32_splat(point, 8));
      const v = f32x4.sub(f32x4.add(f32x4.add(f32x4.mul(x, b0), f32x4.mul(y, b1)), b2), v128.load32_splat(point, 12));
      const squared = f32x4.add(f32x4.mul(u, u), f32x4.mul(v, v));
      sum = f32x4.add(sum, f32x4.pmin(most, squared));
    }
    v128.store(out + at, sum);
  }
}
