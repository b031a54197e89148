/** manifest.json of a model bundle, checked as `delf_edge/bundle/manifest.py` checks it. */

import {BundleError, BundleIntegrityError, BundleVersionError} from '../errors.js';
import {messageOf} from '../files/fetch.js';
import {dumpJson, parseJson} from '../files/python_json.js';
import {sha256} from '../files/sha256.js';

export const MANIFEST = 'manifest.json';
const FORMAT = 'delf-edge-bundle', FORMAT_VERSION = 1, MAX_MANIFEST = 4 * 1024 * 1024;

export interface FileEntry {
  readonly bytes: number;
  readonly sha256: string;
}

/** A network and its variants: variant -> file name. */
export interface Variants {
  readonly variants: ReadonlyMap<string, string>;
  readonly default: string;
  readonly channels: number;
}

/** The content of a manifest; the fields are those of Python's `Manifest`. */
export interface Manifest {
  readonly id: string;
  readonly name: string;
  readonly files: ReadonlyMap<string, FileEntry>;
  readonly network: Variants & {
    readonly mean: number;
    readonly scale: number;
    readonly stride: number;
    readonly offset: number;
  };
  readonly tail: Variants | null;
  readonly selection: 'attention' | 'l2norm';
  readonly gemP: number;
  readonly levelScale: number;
  readonly codebook: string;
  readonly cohort: string | null;
  readonly presets: ReadonlyMap<string, Readonly<Record<string, unknown>>>;
  readonly defaultPreset: string;
  readonly calibration: Readonly<Record<string, unknown>>;
}

type Section = Record<string, unknown>;

/**
 * A manifest from the bytes of its file.
 *
 * @throws BundleError it is no manifest, or a value is missing or wrong; the message names it.
 * @throws BundleVersionError its format is newer than this SDK.
 * @throws BundleIntegrityError it says another id than its content has.
 */
export async function parseManifest(bytes: Uint8Array, where: string): Promise<Manifest> {
  if (bytes.length > MAX_MANIFEST) {
    throw new BundleError(`${where} has ${bytes.length} bytes; a manifest has at most ${MAX_MANIFEST}`);
  }
  let text: string, raw: unknown;
  try {
    text = new TextDecoder('utf-8', {fatal: true}).decode(bytes);
    raw = JSON.parse(text);
  } catch (e) {
    throw new BundleError(`${where} is not valid JSON: ${messageOf(e)}; copy the bundle again`);
  }
  if (!isSection(raw) || raw.format !== FORMAT) {
    const found = isSection(raw) ? JSON.stringify(raw.format) : typeof raw;
    throw new BundleError(`${where} is not the manifest of a model bundle: format is ${found}, expected "${FORMAT}"`);
  }
  const version = raw.format_version;
  if (!Number.isInteger(version) || (version as number) < 1) {
    throw new BundleError(`${where}: format_version is ${String(version)}; expected a number from 1 to ${FORMAT_VERSION}`);
  }
  if ((version as number) > FORMAT_VERSION) {
    throw new BundleVersionError(
      `${where} has bundle format ${String(version)}, this SDK reads up to ${FORMAT_VERSION}; upgrade delf-edge`,
    );
  }
  const id = await bundleId(text);
  if ('id' in raw && raw.id !== id) {
    throw new BundleIntegrityError(`${where} says that it is bundle ${String(raw.id)}, its content is ${id}; copy it again`);
  }
  return typed(raw, id);
}

/** First 12 digits of the SHA-256 of the manifest without its own id, written as Python writes it. */
async function bundleId(text: string): Promise<string> {
  const content = parseJson(text) as Map<string, never>;
  content.delete('id');
  return (await sha256(new TextEncoder().encode(dumpJson(content)))).slice(0, 12);
}

function typed(raw: Section, id: string): Manifest {
  const files = fileEntries(raw), network = section(raw, 'network'), pooling = section(raw, 'global');
  const input = section(network, 'input', 'network.');
  for (const [key, only] of [['layout', 'NHWC'], ['dtype', 'float32'], ['channels', 'RGB']]) {
    if (input[key] !== only) {
      throw new BundleError(`manifest: network.input.${key} is ${show(input[key])}; this SDK knows "${only}"; upgrade delf-edge`);
    }
  }
  const selection = text(raw, 'selection');
  if (selection !== 'attention' && selection !== 'l2norm') {
    throw new BundleError(`manifest: selection is "${selection}"; this SDK knows attention and l2norm`);
  }
  const presets = new Map(Object.entries(section(raw, 'presets')).map(([name, value]) => {
    if (!isSection(value)) throw wrong(`presets.${name}`, value);
    return [name, value];
  }));
  const defaultPreset = text(raw, 'default_preset');
  if (!presets.has(defaultPreset)) {
    throw new BundleError(`manifest: default_preset is "${defaultPreset}", but there is only ${[...presets.keys()].join(', ')}`);
  }
  text(raw, 'version');
  text(raw, 'licence');
  named(raw, 'golden', files);
  if ('graph' in raw) named(raw, 'graph', files); // the graph over the words is not read: every word is compared
  const tail = raw.tail === null ? null : section(raw, 'tail');
  return {
    id,
    name: text(raw, 'name'),
    files,
    network: {
      ...variants(network, files, 'network'),
      mean: number(input, 'mean', 'network.input.'),
      scale: positive(input, 'scale', 'network.input.'),
      stride: count(network, 'stride', 'network.'),
      offset: number(network, 'offset', 'network.'),
    },
    tail: tail === null ? null : variants(tail, files, 'tail'),
    selection,
    gemP: positive(pooling, 'gem_p', 'global.'),
    levelScale: positive(pooling, 'level_scale', 'global.'),
    codebook: named(raw, 'codebook', files),
    cohort: 'cohort' in raw ? named(raw, 'cohort', files) : null,
    presets,
    defaultPreset,
    calibration: section(raw, 'calibration'),
  };
}

function fileEntries(raw: Section): Map<string, FileEntry> {
  const files = new Map<string, FileEntry>();
  for (const [name, value] of Object.entries(section(raw, 'files'))) {
    if (!/^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/.test(name) || name === MANIFEST) {
      throw new BundleError(`manifest: file name "${name}" is not allowed; names are plain, without folders`);
    }
    const entry = isSection(value) ? value : {}, {bytes, sha256: digest} = entry;
    if (!Number.isInteger(bytes) || (bytes as number) < 0 || !/^[0-9a-f]{64}$/.test(String(digest))) {
      throw new BundleError(`manifest: files.${name} has no valid size and SHA-256; pack the bundle again`);
    }
    files.set(name, {bytes: bytes as number, sha256: String(digest)});
  }
  return files;
}

function variants(from: Section, files: ReadonlyMap<string, FileEntry>, where: string): Variants {
  const found = section(from, 'variants', `${where}.`);
  const byName = new Map(Object.keys(found).map(v => [v, named(found, v, files, `${where}.variants.`)]));
  const standard = text(from, 'default', `${where}.`);
  if (!byName.has(standard)) {
    throw new BundleError(`manifest: ${where}.default is "${standard}", but there is only ${[...byName.keys()].join(', ')}`);
  }
  return {variants: byName, default: standard, channels: count(from, 'channels', `${where}.`)};
}

function isSection(value: unknown): value is Section {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function show(value: unknown): string {
  return JSON.stringify(value) ?? 'missing';
}

function wrong(name: string, value: unknown): BundleError {
  return value === undefined
    ? new BundleError(`manifest: ${name} is missing; pack the bundle again`)
    : new BundleError(`manifest: ${name} is ${show(value)}, a value of the wrong type; pack the bundle again`);
}

function section(from: Section, key: string, where = ''): Section {
  const value = from[key];
  if (!isSection(value)) throw wrong(where + key, value);
  return value;
}

function text(from: Section, key: string, where = ''): string {
  const value = from[key];
  if (typeof value !== 'string') throw wrong(where + key, value);
  return value;
}

function number(from: Section, key: string, where: string): number {
  const value = from[key];
  if (typeof value !== 'number' || !Number.isFinite(value)) throw wrong(where + key, value);
  return value;
}

function positive(from: Section, key: string, where: string): number {
  const value = number(from, key, where);
  if (value <= 0) throw new BundleError(`manifest: ${where}${key} is ${value}; expected a number above 0; pack the bundle again`);
  return value;
}

function count(from: Section, key: string, where: string): number {
  const value = number(from, key, where);
  if (!Number.isInteger(value) || value < 1) {
    throw new BundleError(`manifest: ${where}${key} is ${value}; expected at least 1; pack the bundle again`);
  }
  return value;
}

function named(from: Section, key: string, files: ReadonlyMap<string, FileEntry>, where = ''): string {
  const name = text(from, key, where);
  if (!files.has(name)) {
    throw new BundleError(`manifest: ${where}${key} names "${name}", which is not in files; pack the bundle again`);
  }
  return name;
}
