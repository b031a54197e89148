/**
 * A photo becomes RGB pixels, upright. The browser decodes; sizes are capped, orientation is applied and large JPEGs are
 * reduced here, so that every browser gives the same.
 */

import {ImageDecodeError, ImageError} from '../errors.js';
import {messageOf} from '../files/fetch.js';
import type {ImageLimits, Photo, Pixels} from '../types.js';
import {checkHeader, checkPixels, reduction, takeOrientation} from './headers.js';
import {type Picture, resize} from './resize.js';

/**
 * The pixels of a photo. An `ImageBitmap` or `VideoFrame` is closed.
 *
 * @throws ImageDecodeError not an image, cut off, damaged, or of a form that this browser does not read.
 * @throws ImageTooLargeError more pixels or bytes than the limits allow.
 * @throws ImageError pixels that do not fit their size.
 */
export async function loadPicture(photo: Photo, limits: ImageLimits): Promise<Picture> {
  if (photo instanceof Blob) return fromFile(new Uint8Array(await photo.arrayBuffer()), limits);
  if ('data' in photo) {
    checkPixels(photo.width, photo.height, limits);
    return photo.data.length === 4 * photo.width * photo.height ? withoutAlpha(photo as ImageData) : checked(photo as Pixels);
  }
  try {
    const [width, height] = 'displayWidth' in photo ? [photo.displayWidth, photo.displayHeight] : [photo.width, photo.height];
    checkPixels(width, height, limits);
    return drawn(photo, width, height);
  } finally {
    photo.close();
  }
}

async function fromFile(data: Uint8Array, limits: ImageLimits): Promise<Picture> {
  const {kind, width, height} = checkHeader(data, limits), {orientation, file} = takeOrientation(data, kind);
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(new Blob([file as Uint8Array<ArrayBuffer>]), {colorSpaceConversion: 'none', premultiplyAlpha: 'none'});
  } catch (e) {
    throw new ImageDecodeError(`this ${kind} is damaged or of a form that the browser does not read (${messageOf(e)}); save it again as JPEG or PNG`);
  }
  try {
    checkPixels(bitmap.width, bitmap.height, limits);
    const picture = drawn(bitmap, bitmap.width, bitmap.height), factor = kind === 'JPEG' ? reduction(width, height, limits) : 1;
    const reduced = factor === 1 ? picture : resize(picture, Math.ceil(picture.width / factor), Math.ceil(picture.height / factor), 'area');
    return upright(reduced, orientation);
  } finally {
    bitmap.close();
  }
}

function drawn(source: ImageBitmap | VideoFrame, width: number, height: number): Picture {
  const context = new OffscreenCanvas(width, height).getContext('2d', {willReadFrequently: true});
  if (context === null) throw new ImageError(`no memory for a picture of ${width} x ${height} pixels; close other pages`);
  context.drawImage(source, 0, 0, width, height);
  return withoutAlpha(context.getImageData(0, 0, width, height));
}

function withoutAlpha({width, height, data: rgba}: ImageData): Picture {
  const data = new Uint8Array(3 * width * height);
  for (let i = 0, j = 0; i < rgba.length; i += 4, j += 3) {
    data[j] = rgba[i];
    data[j + 1] = rgba[i + 1];
    data[j + 2] = rgba[i + 2];
  }
  return {width, height, data};
}

function checked({width, height, data}: Pixels): Picture {
  if (!(width > 0 && height > 0) || data.length !== 3 * width * height) {
    throw new ImageError(`${data.length} bytes for ${width} x ${height} pixels; give 3 a pixel, RGB, or an ImageData`);
  }
  return {width, height, data};
}

/** A picture as an EXIF orientation of 1..8 says that it is to be seen. */
export function upright(image: Picture, orientation: number): Picture {
  const {width, height, data} = image;
  if (orientation <= 1 || orientation > 8) return image;
  const swapped = orientation >= 5, w = swapped ? height : width, h = swapped ? width : height, out = new Uint8Array(data.length);
  for (let y = 0, o = 0; y < h; y++) {
    for (let x = 0; x < w; x++, o += 3) {
      let u = swapped ? y : x, v = swapped ? x : y;
      if ([2, 3, 7, 8].includes(orientation)) u = width - 1 - u;
      if ([3, 4, 6, 7].includes(orientation)) v = height - 1 - v;
      const i = 3 * (v * width + u);
      out[o] = data[i];
      out[o + 1] = data[i + 1];
      out[o + 2] = data[i + 2];
    }
  }
  return {width: w, height: h, data: out};
}

/** A picture turned clockwise by 90, 180 or 270 degrees. */
export function turned(image: Picture, degrees: number): Picture {
  return upright(image, new Map([[90, 6], [180, 3], [270, 8]]).get(degrees) ?? 1);
}
