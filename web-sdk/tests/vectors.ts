/** The vectors that the Python code made (`python -m testing.web_sdk_vectors`), and what the tests share. */

import {readFileSync} from 'node:fs';
import {join} from 'node:path';

import {type Bundle, loadBundle} from '../src/bundle/bundle.js';
import {type NpyArray, readNpz} from '../src/files/npz.js';
import {Kernels} from '../src/kernels.js';
import type {StoredImage} from '../src/storage/database.js';
import {Database} from '../src/storage/database.js';
import {loadSqlite} from '../src/storage/sqlite.js';

export const VECTORS = join(process.cwd(), 'tests', 'vectors');
const BUNDLE = join(process.cwd(), '..', 'assets', 'default');

export interface QueryFacts {
  levels: {size: [number, number]; crc32: number}[];
  candidates: [number, number, number, number][];
  strangers: [number, number, number, number][];
  matches: number[];
  inliers: number[];
  answer: {
    landmark: string | null; image: string | null; probability: number; nInliers: number; reason: string;
    results: [string, number, number, number][];
  };
  frame: [number, number, number, number];
}

export interface Facts {
  resize: ('area' | 'linear')[];
  queries: Record<string, QueryFacts>;
  story: {now: number; named: Record<string, number>; decisions: [string, string, string | null][]; state: string; present: string[]}[];
}

export const facts = JSON.parse(readFileSync(join(VECTORS, 'vectors.json'), 'utf8')) as Facts;
export const arrays: Promise<Map<string, NpyArray>> = readNpz(bytesOf(join(VECTORS, 'vectors.npz')), 'vectors.npz');

export function bytesOf(path: string): Uint8Array {
  return new Uint8Array(readFileSync(path));
}

/** The files of the default bundle by name. */
export function bundleFiles(): Map<string, Uint8Array> {
  const manifest = bytesOf(join(BUNDLE, 'manifest.json')), {files} = JSON.parse(new TextDecoder().decode(manifest)) as {files: object};
  return new Map([['manifest.json', manifest], ...Object.keys(files).map((n): [string, Uint8Array] => [n, bytesOf(join(BUNDLE, n))])]);
}

export interface Opened {
  bundle: Bundle;
  kernels: Kernels;
  database: Database;
  images: StoredImage[];
}

/** The default bundle and the pack of the vectors. */
export async function openAll(): Promise<Opened> {
  const bundle = await loadBundle(bundleFiles()), {M, G, K} = bundle.codebook, sqlite = await loadSqlite(null);
  const layout = {codeSize: M, globalDim: G, nWords: K};
  const database = Database.open(sqlite, bytesOf(join(VECTORS, 'demo.pack')), 'demo.pack', bundle.manifest.id, layout);
  return {bundle, kernels: await Kernels.load(), database, images: database.images()};
}

export async function floats(name: string): Promise<Float32Array> {
  return Float32Array.from((await arrays).get(name)!.data as Float32Array);
}

/** The largest difference of two lists of numbers; infinite where they are not of one length. */
export function apart(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  let most = 0;
  for (let i = 0; i < a.length; i++) most = Math.max(most, Number.isNaN(a[i]) && Number.isNaN(b[i]) ? 0 : Math.abs(a[i] - b[i]) || 0);
  return most;
}
