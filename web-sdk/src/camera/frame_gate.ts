/** Which frames are worth a query, as `delf_edge/camera/frame_gate.py` and `delf_edge/images/quality.py`. */

import {OptionError} from '../errors.js';
import {type Picture, resize, roundHalfEven} from '../images/resize.js';
import type {GateOptions, Verdict} from '../types.js';

const WIDTH = 160, CHANGE_WIDTH = 32;
const DEFAULTS: GateOptions = {minBrightness: 18, maxBrightShare: 0.6, minContrast: 8, minSharpness: 0.05, minChange: 3, refresh: 5};

/** Measures of one frame; see `FrameMeasures` in Python. */
export interface FrameMeasures {
  readonly brightness: number;
  readonly brightShare: number;
  readonly contrast: number;
  readonly sharpness: number;
  readonly small: Picture;
}

/** Measures of a grey copy 160 pixels wide. */
export function measure(image: Picture): FrameMeasures {
  const width = Math.min(WIDTH, image.width), height = Math.max(1, roundHalfEven((image.height * width) / image.width));
  const grey = toGrey(resize(image, width, height, 'area')), {data} = grey, n = data.length;
  let sum = 0, squares = 0, bright = 0;
  for (const v of data) {
    sum += v;
    squares += v * v;
    bright += Number(v > 250);
  }
  const mean = sum / n, contrast = Math.sqrt(Math.max(squares / n - mean * mean, 0));
  const edges = Math.min(edge(grey, 1, 0), edge(grey, 0, 1));
  const small = resize(grey, CHANGE_WIDTH, Math.max(1, roundHalfEven((height * CHANGE_WIDTH) / width)), 'area');
  return {brightness: mean, brightShare: bright / n, contrast, sharpness: edges / Math.max(contrast, 1), small};
}

/** Grey as OpenCV's `cvtColor` rounds it. */
function toGrey({width, height, data}: Picture): Picture {
  const grey = new Uint8Array(width * height);
  for (let i = 0, j = 0; i < grey.length; i++, j += 3) {
    grey[i] = (data[j] * 9798 + data[j + 1] * 19235 + data[j + 2] * 3735 + 16384) >> 15;
  }
  return {width, height, data: grey};
}

/** Mean size of the second derivative along one direction; the border is mirrored without its last pixel. */
function edge({width, height, data}: Picture, dx: number, dy: number): number {
  const mirrored = (i: number, n: number) => (n === 1 ? 0 : i < 0 ? -i : i >= n ? 2 * n - 2 - i : i);
  let sum = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const before = data[mirrored(y - dy, height) * width + mirrored(x - dx, width)];
      const after = data[mirrored(y + dy, height) * width + mirrored(x + dx, width)];
      sum += Math.abs(before - 2 * data[y * width + x] + after);
    }
  }
  return sum / (width * height);
}

/** Decides frame by frame. */
export class Gate {
  private readonly options: GateOptions;
  private last: Picture | null = null;
  private lookedAt = 0;

  constructor(options: Partial<GateOptions> = {}) {
    const o = (this.options = {...DEFAULTS, ...options});
    if (!(Math.min(o.minBrightness, o.minContrast, o.minSharpness, o.minChange) >= 0 && o.refresh > 0)) {
      throw new OptionError(`limits must not be negative, refresh must be above 0: ${JSON.stringify(o)}`);
    }
  }

  /** Whether to look at a frame; `settled` false lets unchanged frames pass. `now` in seconds. */
  judge(image: Picture, now: number, settled = true): Exclude<Verdict, 'dropped'> {
    const frame = measure(image), o = this.options;
    if (frame.brightness < o.minBrightness) return 'black';
    if (frame.brightShare > o.maxBrightShare) return 'blown out';
    if (frame.contrast < o.minContrast) return 'flat';
    if (frame.sharpness < o.minSharpness) return 'blurred';
    if (settled && now - this.lookedAt < o.refresh && this.difference(frame.small) < o.minChange) return 'unchanged';
    this.last = frame.small;
    this.lookedAt = now;
    return 'look';
  }

  private difference({width, height, data}: Picture): number {
    const {last} = this;
    if (last === null || last.width !== width || last.height !== height) return Infinity;
    let sum = 0;
    for (let i = 0; i < data.length; i++) sum += Math.abs(last.data[i] - data[i]);
    return sum / data.length;
  }
}
