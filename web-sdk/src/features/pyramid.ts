/** An image becomes the levels that the network sees, as `delf_edge/features/pyramid.py`. */

import {type Picture, resize, roundHalfEven} from '../images/resize.js';

const MIN_SIDE = 32;

/** One resized copy; `scaleX` and `scaleY` are level pixels per image pixel. */
export interface Level extends Picture {
  readonly scaleX: number;
  readonly scaleY: number;
}

/** Longer side in pixels that scale 1 stands for. */
export function workingSize(image: Picture, baseSize: number, maxUpscale: number): number {
  return Math.min(baseSize, maxUpscale * Math.max(image.width, image.height));
}

/** The levels of an image, the largest first; none where it is tiny or a thin strip. */
export function buildPyramid(image: Picture, scales: readonly number[], baseSize: number, maxUpscale: number): Level[] {
  const {width, height} = image, work = workingSize(image, baseSize, maxUpscale), sizes = new Map<string, [number, number]>();
  for (const scale of scales) {
    const factor = (work * scale) / Math.max(width, height);
    const w = Math.max(1, roundHalfEven(width * factor)), h = Math.max(1, roundHalfEven(height * factor));
    if (Math.min(w, h) >= MIN_SIDE) sizes.set(`${w}x${h}`, [w, h]);
  }
  const halves = [image];
  return [...sizes.values()]
    .sort((a, b) => b[0] - a[0] || b[1] - a[1])
    .map(([w, h]) => ({...sized(halves, w, h), scaleX: w / width, scaleY: h / height}));
}

/** A size from the smallest of the photo, its half, its quarter ... that is not smaller; `halves` grows. */
function sized(halves: Picture[], width: number, height: number): Picture {
  const half = (n: number) => (n + 1) >> 1, enough = (pixels: number, wanted: number) => pixels >= 0.97 * wanted;
  let last = halves[halves.length - 1];
  while (enough(half(last.width), width) && enough(half(last.height), height)) {
    const even = last.width % 2 === 0 && last.height % 2 === 0;
    last = resize(last, half(last.width), half(last.height), even ? 'area' : 'linear');
    halves.push(last);
  }
  const source = [...halves].reverse().find(p => enough(p.width, width) && enough(p.height, height)) ?? halves[0];
  return resize(source, width, height, source.width > 1.5 * width ? 'area' : 'linear');
}
