/** The manifest of a pack, and whether the pack's bytes are what it says; as `delf_edge/packs/manifest.py`. */

import {PackError, PackIntegrityError} from '../errors.js';
import {messageOf} from '../files/fetch.js';
import {dumpJson, type JsonNode, parseJson} from '../files/python_json.js';
import {sha256} from '../files/sha256.js';
import type {Database} from './database.js';

const FORMAT = 1, MAX_MANIFEST = 1 << 20, STYLE = {indent: 1, ascii: false};
const COUNTS = ['version', 'schema_version', 'images', 'landmarks', 'features', 'bytes'];
const TEXTS = ['name', 'bundle_id', 'sha256', 'content_sha256'];
const FIELDS = ['format', 'manifest_sha256', 'layout', 'selection', ...COUNTS, ...TEXTS];

export interface PackManifest {
  readonly name: string;
  readonly version: number;
  readonly bundle_id: string;
  readonly layout: {readonly code_size: number; readonly global_dim: number; readonly n_words: number};
  readonly images: number;
  readonly features: number;
  readonly bytes: number;
  readonly sha256: string;
}

/** @throws PackError it is of a newer format; PackIntegrityError: it is damaged. */
export async function parsePackManifest(bytes: Uint8Array, where: string): Promise<PackManifest> {
  let text: string, facts: Record<string, unknown>, tree: JsonNode;
  try {
    if (bytes.length > MAX_MANIFEST) throw new RangeError(`${bytes.length} bytes are too many`);
    text = new TextDecoder('utf-8', {fatal: true}).decode(bytes);
    facts = JSON.parse(text) as Record<string, unknown>;
    tree = parseJson(text);
  } catch (e) {
    throw new PackIntegrityError(`${where}: damaged, no JSON (${messageOf(e)}); fetch the pack again`);
  }
  if (!(tree instanceof Map) || !Number.isInteger(facts.format)) {
    throw new PackIntegrityError(`${where}: not the manifest of a pack; fetch the pack again`);
  }
  if (facts.format !== FORMAT) {
    throw new PackError(`${where}: manifest of format ${String(facts.format)}, this delf-edge reads ${FORMAT}; install a newer one`);
  }
  const unsound = (why: string) => new PackIntegrityError(`${where}: not a sound manifest (${why}); fetch the pack again`);
  if (String(Object.keys(facts).sort()) !== String([...FIELDS].sort())) throw unsound(`its fields are ${Object.keys(facts).sort().join(', ')}`);
  for (const key of COUNTS) if (!Number.isInteger(facts[key]) || (facts[key] as number) < 0) throw unsound(`${key} is ${JSON.stringify(facts[key])}`);
  for (const key of TEXTS) if (typeof facts[key] !== 'string') throw unsound(`${key} is ${JSON.stringify(facts[key])}`);
  const layout = facts.layout as Record<string, unknown> | null;
  if (typeof layout !== 'object' || layout === null || String(Object.keys(layout).sort()) !== 'code_size,global_dim,n_words') {
    throw unsound(`layout is ${JSON.stringify(layout)}`);
  }
  const utf8 = new TextEncoder(), own = new Map(tree);
  own.delete('manifest_sha256');
  if ((await sha256(utf8.encode(`${dumpJson(own, STYLE)}\n`))) !== facts.manifest_sha256) throw unsound('it was changed: its own SHA-256 differs');
  if (`${dumpJson(tree, STYLE)}\n` !== text) throw new PackIntegrityError(`${where}: changed since it was written; fetch the pack again`);
  return facts as unknown as PackManifest;
}

/** @throws PackIntegrityError the file is cut off or changed. */
export async function checkPack(bytes: Uint8Array, manifest: PackManifest, where: string): Promise<void> {
  if (bytes.length !== manifest.bytes) {
    throw new PackIntegrityError(
      `${where}: ${bytes.length} bytes, by its manifest ${manifest.name} version ${manifest.version} has ${manifest.bytes}; fetch the pack again`,
    );
  }
  const found = await sha256(bytes);
  if (found !== manifest.sha256) {
    throw new PackIntegrityError(
      `${where}: changed; its SHA-256 is ${found.slice(0, 12)}, not ${manifest.sha256.slice(0, 12)}; fetch the pack again`,
    );
  }
}

/** @throws PackIntegrityError what is in the file is not what the manifest says. */
export function checkContent(database: Database, manifest: PackManifest, nImages: number, nFeatures: number): void {
  const {layout} = database;
  const found = [database.bundleId, layout.codeSize, layout.globalDim, layout.nWords, nImages, nFeatures, database.sealed].join(', ');
  const {code_size, global_dim, n_words} = manifest.layout;
  const said = [manifest.bundle_id, code_size, global_dim, n_words, manifest.images, manifest.features, true].join(', ');
  if (found !== said) throw new PackIntegrityError(`${database.name}: holds ${found}, by its manifest ${said}; fetch the pack again`);
}
