/** The one path through all stages, in this thread; `client.ts` has the same in a worker. */

import {loadBundle} from './bundle/bundle.js';
import type {Bundle} from './bundle/bundle.js';
import {FrameWatcher} from './camera/session.js';
import {Catalogue} from './catalogue/catalogue.js';
import {ClosedError, PackError} from './errors.js';
import {Extractor} from './features/extractor.js';
import {loadRuntime} from './features/network.js';
import {type ExtractOptions, presetOptions} from './features/options.js';
import {readFile} from './files/fetch.js';
import {loadPicture, turned} from './images/decode.js';
import {DEFAULT_LIMITS} from './images/headers.js';
import type {Picture} from './images/resize.js';
import {Kernels} from './kernels.js';
import {Newest} from './newest.js';
import {type Judged, QueryPipeline, queryOptions} from './query/pipeline.js';
import {Queue} from './queue.js';
import {Database} from './storage/database.js';
import {checkContent, checkPack, type PackManifest, parsePackManifest} from './storage/pack_manifest.js';
import {loadSqlite} from './storage/sqlite.js';
import {type Timings, timed, timedAsync} from './timing.js';
import type {
  Answer, FileSource, FrameResult, IdentifyOptions, ImageLimits, LandmarkInfo, OpenOptions, Photo, Recognizer, RecognizerInfo, Session,
  SessionOptions,
} from './types.js';

const TURNS = [90, 270, 180], TURNED_CERTAIN = 0.8; // of what is found in a turned photo

/**
 * Opens a bundle and a database in this thread. A page should use `openInWorker`: this one blocks while it works.
 *
 * @throws (rejects with) an error of `errors.ts`.
 */
export async function open(options: OpenOptions): Promise<Recognizer> {
  const timings: Timings = {}, began = performance.now(), progress = options.onProgress ?? (() => {});
  const folder = wasmFolder(options.wasm);
  const name = typeof options.database === 'string' || options.database instanceof URL ? String(options.database) : 'the database';
  const [bundle, kernels, runtime, sqlite, bytes, manifest] = await Promise.all([
    timedAsync(timings, 'bundle', () => loadBundle(options.bundle, options.variant, progress)),
    Kernels.load(),
    timedAsync(timings, 'runtime', () => loadRuntime({
      folder, accelerator: options.accelerator === 'webgpu' ? 'webgpu' : 'wasm', threads: options.threads ?? true,
    })),
    loadSqlite(folder),
    timedAsync(timings, 'database', () => readFile(options.database, name, progress)),
    packManifest(options),
  ]);
  if (manifest !== null) await checkPack(bytes, manifest, name);
  const {M, G, K} = bundle.codebook, layout = {codeSize: M, globalDim: G, nWords: K};
  const database = Database.open(sqlite, bytes, name, bundle.manifest.id, layout);
  try {
    const extract = presetOptions(bundle.manifest, options.preset), images = database.images();
    const nFeatures = images.reduce((n, image) => n + image.codes.n, 0);
    if (manifest !== null) checkContent(database, manifest, images.length, nFeatures);
    const pipeline = timed(timings, 'index', () => new QueryPipeline(kernels, bundle, images)), catalogue = new Catalogue(database);
    timings.total = performance.now() - began;
    const info: RecognizerInfo = {
      bundleId: bundle.manifest.id, bundleName: bundle.manifest.name, databaseUuid: database.uuid, revision: database.revision,
      pack: manifest === null ? null : {name: manifest.name, version: manifest.version},
      nImages: images.length, nLandmarks: new Set(images.map(i => i.landmark)).size, nFeatures,
      languages: catalogue.languages, damaged: [...database.damaged.values()],
      preset: options.preset ?? bundle.manifest.defaultPreset, accelerator: runtime.accelerator, threads: runtime.threads,
      milliseconds: timings,
    };
    const extractor = new Extractor(kernels, bundle, runtime);
    return new LocalRecognizer(info, bundle, database, catalogue, extractor, extract, pipeline, {...DEFAULT_LIMITS, ...options.limits});
  } catch (e) {
    database.close();
    throw e;
  }
}

class LocalRecognizer implements Recognizer {
  private readonly queue = new Queue();
  private closed = false;

  constructor(
    readonly info: RecognizerInfo,
    readonly bundle: Bundle,
    private readonly database: Database,
    private readonly catalogue: Catalogue,
    private readonly extractor: Extractor,
    private readonly extract: ExtractOptions,
    private readonly pipeline: QueryPipeline,
    private readonly limits: ImageLimits,
  ) {}

  identify(photo: Photo, options: IdentifyOptions = {}): Promise<Answer> {
    return this.next(async () => {
      queryOptions(options); // a wrong one fails before the photo is decoded
      const timings: Timings = {}, began = performance.now();
      return this.ask(await timedAsync(timings, 'decode', () => loadPicture(photo, this.limits)), options, timings, began);
    });
  }

  session(options: SessionOptions = {}): Session {
    const watcher = new FrameWatcher(options);
    const newest = new Newest<Photo, FrameResult>(
      (photo, now) => this.next(async () => {
        const timings: Timings = {}, began = performance.now();
        const frame = await timedAsync(timings, 'decode', () => loadPicture(photo, this.limits));
        return watcher.look(frame, now, (picture, how) => this.ask(picture, how, timings, began));
      }),
      photo => {
        if ('close' in photo) photo.close();
        return watcher.dropped();
      },
    );
    const seconds = () => performance.now() / 1000;
    return {
      look: (frame, now = seconds()) => newest.give(frame, now),
      tick: (now = seconds()) => this.next(async () => watcher.tick(now)),
      reset: () => watcher.reset(),
    };
  }

  landmarks(languages: readonly string[] = []): Promise<readonly LandmarkInfo[]> {
    return this.next(async () => this.catalogue.all(languages));
  }

  landmark(slugOrName: string, languages: readonly string[] = []): Promise<LandmarkInfo | null> {
    return this.next(async () => this.catalogue.find(slugOrName, languages));
  }

  media(slug: string, name: string): Promise<Blob | null> {
    return this.next(() => this.catalogue.media(slug, name));
  }

  thumbnail(imageId: number): Promise<Blob | null> {
    return this.next(async () => {
      const jpeg = this.database.rows('thumbnails', {column: 'image_id', equals: imageId})[0]?.jpeg;
      return jpeg instanceof Uint8Array ? new Blob([jpeg as Uint8Array<ArrayBuffer>], {type: 'image/jpeg'}) : null;
    });
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    void this.queue.run(async () => {
      this.extractor.close();
      this.database.close();
    });
  }

  /** Runs a call when those before it are done. */
  private next<T>(call: () => Promise<T>): Promise<T> {
    const refuse = () => {
      if (this.closed) throw new ClosedError('the recogniser was closed; open another one');
    };
    return this.queue.run(async () => {
      refuse();
      return call();
    });
  }

  /** The answer to a photo, in the turn that gives one. */
  private async ask(image: Picture, options: IdentifyOptions, timings: Timings, began: number): Promise<Answer> {
    const features = await this.extractor.extract(image, this.extract, timings);
    let judged = this.pipeline.answer(features, options, timings, began);
    if (judged.landmark === null && (options.turns ?? true) && features.n) {
      judged = (await timedAsync(timings, 'turns', () => this.inTurns(image, options, began))) ?? judged;
    }
    const info = judged.landmark === null ? null : this.catalogue.named(judged.landmark, options.languages ?? []);
    timings.total = performance.now() - began;
    return {...judged, info, milliseconds: timings};
  }

  /**
   * A photo in the likeliest of its other turns, if a landmark is proven beyond doubt there; all of them are looked at in the
   * smallest scale first, as `delf_edge/query/photo.py` does.
   */
  private async inTurns(image: Picture, options: IdentifyOptions, began: number): Promise<Judged | null> {
    const isOver = () => options.deadlineMs !== undefined && performance.now() - began >= options.deadlineMs;
    const glance = {...this.extract, scales: [Math.min(...this.extract.scales)]};
    let best = -Infinity, degrees = TURNS[0];
    for (const turn of TURNS) {
      if (isOver()) return null;
      const score = this.pipeline.bestScore(await this.extractor.extract(turned(image, turn), glance), options);
      if (score > best) [best, degrees] = [score, turn];
    }
    if (best === -Infinity || isOver()) return null;
    const features = await this.extractor.extract(turned(image, degrees), this.extract);
    const judged = this.pipeline.answer(features, options, {}, began);
    const enough = judged.nInliers >= 2 * (options.minInliers ?? 6) && judged.probability >= TURNED_CERTAIN;
    if (judged.landmark === null || !enough) return null;
    const proof = judged.proof === null ? null : {...judged.proof, turned: degrees};
    return {...judged, proof, reason: `${judged.reason}; the photo was turned by ${degrees} degrees clockwise`};
  }
}

/** URL of the folder of the WebAssembly files, with the last slash. */
function wasmFolder(given: string | URL | undefined): string {
  const folder = new URL(given ?? 'wasm/', given === undefined ? import.meta.url : globalThis.location?.href).href;
  return folder.endsWith('/') ? folder : `${folder}/`;
}

async function packManifest({database, manifest}: OpenOptions): Promise<PackManifest | null> {
  if (manifest === null) return null;
  let source: FileSource | undefined = manifest;
  if (source === undefined && (typeof database === 'string' || database instanceof URL)) {
    const [path, query] = String(database).split(/(?=[?#])/, 2);
    if (path.endsWith('.pack')) source = `${path}.json${query ?? ''}`;
  }
  if (source === undefined) return null;
  const name = typeof source === 'string' || source instanceof URL ? String(source) : 'the manifest of the pack';
  const bytes = await readFile(source, name).catch((e: unknown) => {
    throw new PackError(`${name}: the manifest of the pack cannot be read (${e instanceof Error ? e.message : String(e)})`);
  });
  return parsePackManifest(bytes, name);
}
