/** A model bundle, fetched or given, with the SHA-256 of every file that is read compared with the manifest. */

import {BundleError, BundleIntegrityError, OptionError} from '../errors.js';
import {readFile} from '../files/fetch.js';
import {readNpz} from '../files/npz.js';
import {sha256} from '../files/sha256.js';
import type {BundleSource, Progress} from '../types.js';
import {Calibration} from './calibration.js';
import {type Codebook, type Cohort, readCodebook, readCohort} from './codebook.js';
import {MANIFEST, type Manifest, parseManifest} from './manifest.js';

export interface Bundle {
  readonly manifest: Manifest;
  readonly calibration: Calibration;
  readonly codebook: Codebook;
  readonly cohort: Cohort | null;
  /** Content of the local .tflite file, and of the tail's. */
  readonly network: Uint8Array;
  readonly tail: Uint8Array | null;
}

/**
 * Loads a bundle; of the networks only the chosen variant is read.
 *
 * @throws BundleError and its kinds, FetchError; OptionError: it has no such variant.
 */
export async function loadBundle(
  source: BundleSource,
  variant?: string,
  onProgress: (progress: Progress) => void = () => {},
): Promise<Bundle> {
  const where = source instanceof Map ? MANIFEST : String(source) + MANIFEST;
  const manifest = await parseManifest(await bytesOf(source, MANIFEST, onProgress), where);
  const chosen = variant ?? manifest.network.default, file = manifest.network.variants.get(chosen);
  if (file === undefined) {
    const has = [...manifest.network.variants.keys()].sort().join(', ');
    throw new OptionError(`bundle "${manifest.name}" has no variant "${chosen}"; it has ${has}`);
  }
  const {tail} = manifest;
  const tailFile = tail === null ? null : (tail.variants.get(chosen) ?? tail.variants.get(tail.default)!);
  const checked = async (name: string): Promise<Uint8Array> => {
    const entry = manifest.files.get(name)!, bytes = await bytesOf(source, name, onProgress);
    if (bytes.length !== entry.bytes) {
      throw new BundleIntegrityError(`${name} has ${bytes.length} bytes, the manifest says ${entry.bytes}; copy the bundle again`);
    }
    const digest = await sha256(bytes);
    if (digest !== entry.sha256) {
      throw new BundleIntegrityError(
        `${name} has SHA-256 ${digest.slice(0, 12)}..., the manifest says ${entry.sha256.slice(0, 12)}...; copy the bundle again`,
      );
    }
    return bytes;
  };
  const calibration = Calibration.from(manifest.calibration);
  const [network, tailBytes, book, cohort] = await Promise.all([
    checked(file),
    tailFile === null ? null : checked(tailFile),
    checked(manifest.codebook),
    manifest.cohort === null ? null : checked(manifest.cohort),
  ]);
  const codebook = readCodebook(await readNpz(book, `codebook: ${manifest.codebook}`), manifest);
  return {
    manifest,
    calibration,
    codebook,
    cohort: cohort === null ? null : readCohort(await readNpz(cohort, `cohort: ${manifest.cohort}`), codebook),
    network,
    tail: tailBytes,
  };
}

async function bytesOf(source: BundleSource, name: string, onProgress: (progress: Progress) => void): Promise<Uint8Array> {
  if (!(source instanceof Map)) {
    const folder = String(source);
    return readFile(folder.endsWith('/') ? folder + name : `${folder}/${name}`, name, onProgress);
  }
  const bytes = (source as ReadonlyMap<string, Uint8Array>).get(name);
  if (bytes === undefined) {
    throw name === MANIFEST
      ? new BundleError(`the files given are not a model bundle: they have no ${MANIFEST}`)
      : new BundleIntegrityError(`${name} is named in the manifest but was not given; give all files of the bundle`);
  }
  return bytes;
}
