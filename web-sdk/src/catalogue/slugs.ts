/** Slugs of landmarks in files of schema version 1, which have none; as `delf_edge/storage/slugs.py`. */

import {sha256 as digest} from '@noble/hashes/sha2.js';

import {hex} from '../files/sha256.js';

const MAX_SLUG = 80;
const UNDECOMPOSED: Readonly<Record<string, string>> = {
  ß: 'ss', æ: 'ae', œ: 'oe', ø: 'o', ł: 'l', đ: 'd', ð: 'd', þ: 'th', ħ: 'h', ı: 'i', ŋ: 'ng',
};

/** A slug for a name: lower case, without diacritics, everything else as hyphens. */
export function slugify(name: string): string {
  const letters = name.toLowerCase().replace(/./gu, c => UNDECOMPOSED[c] ?? c).normalize('NFKD');
  const counted = letters.match(/[\p{L}\p{N}]/gu) ?? [], latin = counted.filter(c => c <= '\x7f').length * 2 >= counted.length;
  const plain = letters.replace(/[^\x00-\x7f]/g, '').replace(/['`]/g, '');
  const trimmed = (text: string) => text.replace(/^-+|-+$/g, '');
  const slug = latin ? trimmed((plain.match(/[a-z0-9]+/g) ?? []).join('-').slice(0, MAX_SLUG)) : '';
  return slug || `place-${hex(digest(new TextEncoder().encode(name))).slice(0, 8)}`;
}

/** `wanted`, or with the first free number behind it. */
export function freeSlug(wanted: string, taken: ReadonlySet<string>): string {
  let slug = wanted;
  for (let number = 2; taken.has(slug); number++) {
    const tail = `-${number}`;
    slug = wanted.slice(0, MAX_SLUG - tail.length).replace(/^-+|-+$/g, '') + tail;
  }
  return slug;
}
