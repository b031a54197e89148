/**
 * Resizing with the pixels of OpenCV: `INTER_AREA` and `INTER_LINEAR` of 8-bit pictures, rounded as it rounds.
 *
 * Areas of whole pixels are averaged in integers, others in 32-bit floats in OpenCV's order; interpolation has weights of
 * 11 bits, rounded in the same places.
 */

/** An 8-bit picture of 3 (RGB) or 1 (grey) channels, row by row. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

/** A resized copy; the number of channels follows from the size of the data. */
export function resize(image: Picture, width: number, height: number, way: 'area' | 'linear'): Picture {
  const channels = image.data.length / (image.width * image.height);
  if (image.width === width && image.height === height) return image;
  const data = new Uint8Array(width * height * channels);
  if (way === 'linear' || width > image.width || height > image.height) linear(image, channels, width, height, data);
  else if (image.width % width === 0 && image.height % height === 0) wholeArea(image, channels, width, height, data);
  else area(image, channels, width, height, data);
  return {width, height, data};
}

/** The nearest whole number, of two the even one, as `cvRound`. */
export function roundHalfEven(x: number): number {
  const low = Math.floor(x), rest = x - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low;
}

/**
 * Where each output pixel reads, and the weights of both neighbours in 2048ths. Beyond the first and last pixel OpenCV
 * sets the weights of columns to 1 and 0, and leaves those of rows.
 */
function linearTable(from: number, to: number, channels: number, columns: boolean): {at: Int32Array; next: Int32Array; low: Int32Array; high: Int32Array} {
  const at = new Int32Array(to), next = new Int32Array(to), low = new Int32Array(to), high = new Int32Array(to), scale = from / to;
  for (let i = 0; i < to; i++) {
    let f = Math.fround((i + 0.5) * scale - 0.5), s = Math.floor(f);
    f = Math.fround(f - s);
    if (columns && s < 0) [s, f] = [0, 0];
    if (columns && s >= from - 1) [s, f] = [from - 1, 0];
    at[i] = Math.max(s, 0) * channels;
    next[i] = Math.min(s + 1, from - 1) * channels;
    low[i] = roundHalfEven(Math.fround(Math.fround(1 - f) * 2048));
    high[i] = roundHalfEven(Math.fround(f * 2048));
  }
  return {at, next, low, high};
}

function linear(image: Picture, channels: number, width: number, height: number, out: Uint8Array): void {
  const x = linearTable(image.width, width, channels, true), y = linearTable(image.height, height, 1, false);
  const n = width * channels, rowOf = [-1, -1], rows = [new Int32Array(n), new Int32Array(n)];
  const fill = (row: Int32Array, sy: number) => {
    const from = sy * image.width * channels, {data} = image;
    for (let i = 0, j = 0; i < width; i++) {
      const a = from + x.at[i], b = from + x.next[i], low = x.low[i], high = x.high[i];
      for (let c = 0; c < channels; c++) row[j++] = data[a + c] * low + data[b + c] * high;
    }
  };
  const rowAt = (sy: number, other: number): Int32Array => {
    let slot = rowOf.indexOf(sy);
    if (slot < 0) {
      slot = rowOf[0] === other ? 1 : 0;
      fill(rows[slot], sy);
      rowOf[slot] = sy;
    }
    return rows[slot];
  };
  for (let i = 0, o = 0; i < height; i++) {
    const first = rowAt(y.at[i], y.next[i]), second = rowAt(y.next[i], y.at[i]), b0 = y.low[i], b1 = y.high[i];
    for (let j = 0; j < n; j++) out[o++] = (((b0 * (first[j] >> 4)) >> 16) + ((b1 * (second[j] >> 4)) >> 16) + 2) >> 2;
  }
}

function wholeArea(image: Picture, channels: number, width: number, height: number, out: Uint8Array): void {
  const sx = image.width / width, sy = image.height / height, stride = image.width * channels, {data} = image;
  if (sx === 2 && sy === 2) {
    for (let y = 0, o = 0; y < height; y++) {
      for (let x = 0, a = 2 * y * stride; x < width; x++, a += 2 * channels) {
        for (let c = a; c < a + channels; c++) {
          out[o++] = (data[c] + data[c + channels] + data[c + stride] + data[c + stride + channels] + 2) >> 2;
        }
      }
    }
    return;
  }
  const scale = Math.fround(1 / (sx * sy));
  for (let y = 0, o = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < channels; c++) {
        let sum = 0;
        for (let i = 0; i < sy; i++) {
          const row = (y * sy + i) * stride + x * sx * channels + c;
          for (let j = 0; j < sx; j++) sum += data[row + j * channels];
        }
        out[o++] = roundHalfEven(Math.fround(sum * scale));
      }
    }
  }
}

interface Part {
  readonly from: number;
  readonly to: number;
  readonly weight: number;
}

/** Which input pixel weighs how much in which output pixel. */
function areaTable(from: number, to: number): Part[] {
  const scale = from / to, parts: Part[] = [];
  for (let i = 0; i < to; i++) {
    const begin = i * scale, end = begin + scale, cell = Math.min(scale, from - begin);
    let first = Math.ceil(begin), last = Math.floor(end);
    last = Math.min(last, from - 1);
    first = Math.min(first, last);
    if (first - begin > 1e-3) parts.push({from: first - 1, to: i, weight: Math.fround((first - begin) / cell)});
    for (let s = first; s < last; s++) parts.push({from: s, to: i, weight: Math.fround(1 / cell)});
    if (end - last > 1e-3) {
      parts.push({from: last, to: i, weight: Math.fround(Math.min(Math.min(end - last, 1), cell) / cell)});
    }
  }
  return parts;
}

function area(image: Picture, channels: number, width: number, height: number, out: Uint8Array): void {
  const columns = areaTable(image.width, width), rows = areaTable(image.height, height), n = width * channels;
  const row = new Float32Array(n), sum = new Float32Array(n), stride = image.width * channels, {data} = image;
  const parts = columns.length, from = new Int32Array(parts), to = new Int32Array(parts), weights = new Float32Array(parts);
  columns.forEach((part, i) => {
    from[i] = part.from * channels;
    to[i] = part.to * channels;
    weights[i] = part.weight;
  });
  let current = rows[0].to;
  const flush = () => {
    for (let j = 0, o = current * n; j < n; j++) out[o++] = roundHalfEven(sum[j]);
  };
  for (const {from: sy, to: dy, weight} of rows) {
    row.fill(0);
    const start = sy * stride, beta = Math.fround(weight);
    for (let i = 0; i < parts; i++) {
      const w = weights[i];
      for (let c = 0, a = start + from[i], b = to[i]; c < channels; c++) {
        row[b + c] = Math.fround(row[b + c] + Math.fround(data[a + c] * w));
      }
    }
    if (dy !== current) {
      flush();
      current = dy;
      for (let j = 0; j < n; j++) sum[j] = Math.fround(beta * row[j]);
    } else for (let j = 0; j < n; j++) sum[j] = Math.fround(sum[j] + Math.fround(beta * row[j]));
  }
  flush();
}
