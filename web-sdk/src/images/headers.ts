/**
 * What the bytes of an image file say before anything is decoded: size, format, end, orientation; as
 * `delf_edge/images/headers.py`.
 */

import {ImageDecodeError, ImageTooLargeError} from '../errors.js';
import {crc32} from '../files/crc32.js';
import type {ImageLimits} from '../types.js';

export type ImageKind = 'JPEG' | 'PNG' | 'WebP' | 'BMP' | 'TIFF' | 'HEIC' | 'AVIF';
/** Stored size, before orientation; 0 x 0 for HEIC and AVIF, whose size the decoder tells. */
export interface Probe {
  readonly width: number;
  readonly height: number;
  readonly kind: ImageKind;
}

export const DEFAULT_LIMITS: ImageLimits = {maxPixels: 120_000_000, maxBytes: 256 * 1024 * 1024, decodeMaxSide: 1280};
const DENSE_FROM = 16_000_000, MAX_DENSITY = 100;
const HEIF_BRANDS = 'heic heix heim heis hevc hevx hevm hevs mif1 msf1 mif2 avif avis'.split(' ');
const OTHERS: readonly (readonly [string, string])[] = [
  ['GIF8', 'a GIF'], ['\0\0\0\x0cjP  ', 'a JPEG 2000'], ['\0\0\0\x0cJXL ', 'a JPEG XL'], ['\xff\x0a', 'a JPEG XL'],
  ['8BPS', 'a Photoshop picture'], ['%PDF', 'a PDF'], ['\x1aE\xdf\xa3', 'a video'], ['PK\x03\x04', 'a ZIP archive'],
];

/** 1, 2, 4 or 8: the part of its size to which a JPEG is brought. */
export function reduction(width: number, height: number, limits: ImageLimits): number {
  return [8, 4, 2].find(f => Math.floor(Math.max(width, height) / f) >= limits.decodeMaxSide) ?? 1;
}

/**
 * What the header says, if a picture of this size may be decoded.
 *
 * @throws ImageDecodeError not a supported image, cut off, or damaged; ImageTooLargeError: more pixels or bytes than allowed.
 */
export function checkHeader(data: Uint8Array, limits: ImageLimits): Probe {
  if (data.length > limits.maxBytes) {
    throw new ImageTooLargeError(`the photo has ${data.length} bytes; the cap is ${limits.maxBytes}. Shrink it`);
  }
  const probe = probeSize(data);
  checkPixels(probe.width, probe.height, limits);
  const pixels = probe.width * probe.height;
  if (pixels > DENSE_FROM && pixels > MAX_DENSITY * data.length) {
    throw new ImageTooLargeError(
      `the photo declares ${(pixels / 1e6).toFixed(1)} million pixels in ${data.length} bytes; above ${DENSE_FROM / 1e6} million ` +
        `pixels a photo has at most ${MAX_DENSITY} a byte. Shrink it`,
    );
  }
  checkEnd(data, probe.kind);
  return probe;
}

export function checkPixels(width: number, height: number, limits: ImageLimits): void {
  if (width * height > limits.maxPixels) {
    throw new ImageTooLargeError(
      `the photo declares ${width} x ${height} pixels, ${((width * height) / 1e6).toFixed(1)} million; the cap is ` +
        `${(limits.maxPixels / 1e6).toFixed(1)} million. Shrink it`,
    );
  }
}

export function probeSize(data: Uint8Array): Probe {
  if (!data.length) throw new ImageDecodeError('the file is empty (0 bytes); copy the photo again');
  let probe: Probe | null;
  try {
    probe = probed(data);
  } catch (e) {
    if (!(e instanceof RangeError)) throw e;
    throw new ImageDecodeError(`the header is cut off after ${data.length} bytes; copy the photo again`);
  }
  if (probe === null) throw new ImageDecodeError(`${whatElse(data)}; JPEG, PNG, WebP, BMP, HEIC and AVIF are supported, convert it to JPEG, PNG or WebP`);
  const box = probe.kind === 'HEIC' || probe.kind === 'AVIF' || probe.kind === 'TIFF';
  if (!box && (probe.width < 1 || probe.height < 1)) {
    throw new ImageDecodeError(`the ${probe.kind} header declares ${probe.width} x ${probe.height} pixels; the file is damaged`);
  }
  return probe;
}

function probed(data: Uint8Array): Probe | null {
  const view = viewOf(data);
  if (starts(data, '\xff\xd8\xff')) {
    for (const [marker, at] of jpegSegments(data)) {
      if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
        return {width: view.getUint16(at + 3), height: view.getUint16(at + 1), kind: 'JPEG'};
      }
    }
    throw new ImageDecodeError(`the JPEG has no frame header in its ${data.length} bytes; it is cut off or damaged`);
  }
  if (starts(data, '\x89PNG\r\n\x1a\n')) {
    const [width, height] = [view.getUint32(16), view.getUint32(20)];
    if (textAt(data, 12, 4) !== 'IHDR') throw new ImageDecodeError('the PNG does not begin with its header; it is damaged');
    return {width, height, kind: 'PNG'};
  }
  if (starts(data, 'RIFF')) {
    const kind = textAt(data, 8, 8), u24 = (at: number) => view.getUint16(at, true) | (view.getUint8(at + 2) << 16);
    if (kind === 'WEBPVP8X') return {width: 1 + u24(24), height: 1 + u24(27), kind: 'WebP'};
    if (kind === 'WEBPVP8L') {
      const bits = view.getUint32(21, true);
      return {width: 1 + (bits & 0x3fff), height: 1 + ((bits >>> 14) & 0x3fff), kind: 'WebP'};
    }
    if (kind === 'WEBPVP8 ') return {width: view.getUint16(26, true) & 0x3fff, height: view.getUint16(28, true) & 0x3fff, kind: 'WebP'};
    throw new ImageDecodeError('a RIFF file that is not a WebP picture; JPEG, PNG, WebP, BMP, HEIC and AVIF are supported');
  }
  if (starts(data, 'BM')) {
    if (view.getUint32(14, true) === 12) return {width: view.getUint16(18, true), height: view.getUint16(20, true), kind: 'BMP'};
    return {width: view.getInt32(18, true), height: Math.abs(view.getInt32(22, true)), kind: 'BMP'};
  }
  if (['II*\0', 'MM\0*', 'II+\0', 'MM\0+'].some(magic => starts(data, magic))) return {width: 0, height: 0, kind: 'TIFF'};
  if (textAt(data, 4, 4) === 'ftyp') {
    const brands = Array.from({length: Math.max(0, Math.floor((view.getUint32(0) - 8) / 4))}, (_, i) => textAt(data, 8 + 4 * i, 4));
    if (brands.some(b => HEIF_BRANDS.includes(b))) {
      return {width: 0, height: 0, kind: brands.some(b => b === 'avif' || b === 'avis') ? 'AVIF' : 'HEIC'};
    }
  }
  return null;
}

/** Refuses a file whose end is missing: decoders return what came before, filled up with grey. */
function checkEnd(data: Uint8Array, kind: ImageKind): void {
  let complete = true;
  if (kind === 'JPEG') {
    const scan = [...jpegSegments(data)].find(([marker]) => marker === 0xda)?.[1] ?? -1;
    complete = false;
    for (let at = scan; scan >= 0 && at + 1 < data.length && !complete; at++) complete = data[at] === 0xff && data[at + 1] === 0xd9;
  } else if (kind === 'PNG') {
    complete = false;
    for (const [name, at, size] of pngChunks(data)) {
      if (data.length < at + size + 4) break;
      if (['IHDR', 'PLTE', 'IDAT', 'IEND'].includes(name) && crc32(data.subarray(at - 4, at + size)) !== viewOf(data).getUint32(at + size)) {
        throw new ImageDecodeError(`the PNG is damaged: wrong checksum of chunk ${name}; copy the photo again`);
      }
      complete ||= name === 'IEND';
    }
  } else if (kind === 'WebP') complete = data.length >= 8 + viewOf(data).getUint32(4, true);
  if (!complete) throw new ImageDecodeError(`the ${kind} is cut off: ${data.length} bytes and no end; copy the photo again`);
}

/**
 * EXIF orientation 1..8 of a JPEG, PNG or WebP (1 where there is none), and the file as it is to be decoded: with an
 * orientation of 1, so that no browser turns it and every browser gives the same pixels.
 */
export function takeOrientation(data: Uint8Array, kind: ImageKind): {orientation: number; file: Uint8Array} {
  const [start, size] = exifBlock(data, kind);
  if (!size) return {orientation: 1, file: data};
  try {
    const view = new DataView(data.buffer, data.byteOffset + start, size), little = view.getUint8(0) === 0x49;
    const directory = view.getUint32(4, little), entries = view.getUint16(directory, little);
    for (let i = 0; i < entries; i++) {
      const at = directory + 2 + 12 * i;
      if (view.getUint16(at, little) !== 274) continue;
      const type = view.getUint16(at + 2, little), value = type === 3 ? view.getUint16(at + 8, little) : type === 4 ? view.getUint32(at + 8, little) : 1;
      if (value < 2 || value > 8) return {orientation: 1, file: data};
      const file = data.slice(), own = new DataView(file.buffer, start, size);
      if (type === 3) own.setUint16(at + 8, 1, little);
      else own.setUint32(at + 8, 1, little);
      if (kind === 'PNG') new DataView(file.buffer).setUint32(start + size, crc32(file.subarray(start - 4, start + size)));
      return {orientation: value, file};
    }
  } catch (e) {
    if (!(e instanceof RangeError)) throw e; // a damaged block turns nothing
  }
  return {orientation: 1, file: data};
}

/** Position and size of the TIFF structure inside the EXIF block; size 0 where there is none. */
function exifBlock(data: Uint8Array, kind: ImageKind): [start: number, size: number] {
  if (kind === 'JPEG') {
    for (const [marker, at] of jpegSegments(data)) {
      if (marker === 0xe1 && textAt(data, at, 6) === 'Exif\0\0') {
        return [at + 6, Math.min(viewOf(data).getUint16(at - 2) - 8, data.length - at - 6)];
      }
    }
  } else if (kind === 'PNG') {
    for (const [name, at, size] of pngChunks(data)) if (name === 'eXIf') return [at, Math.min(size, data.length - at)];
  } else if (kind === 'WebP') {
    for (let at = 12; at + 8 <= data.length; ) {
      const size = viewOf(data).getUint32(at + 4, true);
      if (textAt(data, at, 4) === 'EXIF') {
        const skip = textAt(data, at + 8, 6) === 'Exif\0\0' ? 6 : 0;
        return [at + 8 + skip, Math.min(size - skip, data.length - at - 8 - skip)];
      }
      at += 8 + size + (size % 2);
    }
  }
  return [0, 0];
}

/** (marker, position behind its length field) of each segment up to the start of scan. */
function* jpegSegments(data: Uint8Array): Generator<[number, number]> {
  for (let at = 2; at + 4 <= data.length; ) {
    if (data[at] !== 0xff) return;
    const marker = data[at + 1];
    if (marker === 0xff) at += 1;
    else if (marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8)) at += 2;
    else if (marker === 0xd9) return;
    else {
      yield [marker, at + 4];
      if (marker === 0xda) return;
      at += 2 + ((data[at + 2] << 8) | data[at + 3]);
    }
  }
}

/** (name, position of the content, size of the content) of each chunk. */
function* pngChunks(data: Uint8Array): Generator<[string, number, number]> {
  for (let at = 8; at + 8 <= data.length; ) {
    const size = viewOf(data).getUint32(at), name = textAt(data, at + 4, 4);
    yield [name, at + 8, size];
    if (name === 'IEND') return;
    at += 12 + size;
  }
}

function whatElse(data: Uint8Array): string {
  const other = OTHERS.find(([magic]) => starts(data, magic));
  if (other !== undefined) return other[1];
  if (textAt(data, 4, 4) === 'ftyp') return 'a video';
  const head = data.subarray(0, 512);
  if (textAt(head, 0, 512).includes('<svg')) return 'an SVG drawing';
  if (!head.includes(0)) return `text, beginning with "${new TextDecoder().decode(head.subarray(0, 24))}"`;
  return `not an image (first bytes ${Array.from(data.subarray(0, 8), b => b.toString(16).padStart(2, '0')).join(' ')})`;
}

function viewOf(data: Uint8Array): DataView {
  return new DataView(data.buffer, data.byteOffset, data.byteLength);
}

function textAt(data: Uint8Array, at: number, length: number): string {
  return String.fromCharCode(...data.subarray(at, at + length));
}

function starts(data: Uint8Array, magic: string): boolean {
  return textAt(data, 0, magic.length) === magic;
}
