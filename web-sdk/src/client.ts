/** A recogniser in a worker: the same interface, and the page's picture never stalls. */

import {ClosedError, EngineError, errorOf} from './errors.js';
import {Newest} from './newest.js';
import type {Call, Calls, Reply, Request} from './protocol.js';
import type {Answer, FrameResult, IdentifyOptions, LandmarkInfo, OpenOptions, Photo, Progress, Recognizer, RecognizerInfo, Session, SessionOptions} from './types.js';

/**
 * Opens a bundle and a database in a worker.
 *
 * @param worker URL of `dist/worker.js`, or a worker that was made of it.
 * @throws (rejects with) an error of `errors.ts`; EngineError: the worker cannot be started.
 */
export async function openInWorker(worker: string | URL | Worker, options: OpenOptions): Promise<Recognizer> {
  const {onProgress, ...given} = options, page = globalThis.location?.href;
  const absolute = <T>(source: T): T | string => (typeof source === 'string' || source instanceof URL ? new URL(String(source), page).href : source);
  const own = worker instanceof Worker ? worker : new Worker(worker);
  const line = new Line(own, onProgress ?? (() => {}));
  try {
    const info = await line.send('open', {
      ...given,
      bundle: absolute(given.bundle),
      database: absolute(given.database),
      ...(given.manifest !== undefined && {manifest: absolute(given.manifest)}),
      ...(given.wasm !== undefined && {wasm: absolute(given.wasm)}),
    });
    return new WorkerRecognizer(info, line);
  } catch (e) {
    line.end();
    throw e;
  }
}

/** Requests and replies of one worker. */
class Line {
  private readonly waiting = new Map<number, {resolve: (gives: never) => void; reject: (e: Error) => void}>();
  private last = 0;
  private ended: Error | null = null;

  constructor(private readonly worker: Worker, onProgress: (progress: Progress) => void) {
    worker.addEventListener('message', ({data}: MessageEvent<Reply>) => {
      if ('progress' in data) return onProgress(data.progress);
      const caller = this.waiting.get(data.id);
      this.waiting.delete(data.id);
      if ('error' in data) caller?.reject(errorOf(data.error.name, data.error.message));
      else caller?.resolve(data.gives as never);
    });
    worker.addEventListener('error', event => {
      this.fail(new EngineError(`the worker cannot be started or failed (${event.message ?? 'no message'}); check its address and the page's policy`));
    });
  }

  send<C extends Call>(call: C, given: Calls[C]['given'], transfer: Transferable[] = []): Promise<Calls[C]['gives']> {
    if (this.ended !== null) return Promise.reject(this.ended);
    return new Promise((resolve, reject) => {
      const id = ++this.last;
      this.waiting.set(id, {resolve, reject});
      this.worker.postMessage({id, call, given} as Request, transfer);
    });
  }

  /** Ends the worker and rejects whatever waits. */
  end(): void {
    this.worker.terminate();
    this.fail(new ClosedError('the recogniser was closed; open another one'));
  }

  private fail(e: Error): void {
    this.ended ??= e;
    for (const {reject} of this.waiting.values()) reject(e);
    this.waiting.clear();
  }
}

class WorkerRecognizer implements Recognizer {
  private sessions = 0;

  constructor(readonly info: RecognizerInfo, private readonly line: Line) {}

  identify(photo: Photo, options: IdentifyOptions = {}): Promise<Answer> {
    return this.line.send('identify', {photo, options}, moved(photo));
  }

  session(options: SessionOptions = {}): Session {
    const session = ++this.sessions, {line} = this, seconds = () => performance.now() / 1000;
    const started = line.send('startSession', {session, options});
    started.catch(() => {}); // whoever looks is told
    let known: Pick<FrameResult, 'state' | 'present'> = {state: 'looking', present: []};
    const keep = (result: FrameResult): FrameResult => {
      known = {state: result.state, present: result.present};
      return result;
    };
    // Frames wait on this side: what is dropped is never sent.
    const newest = new Newest<Photo, FrameResult>(
      async (frame, now) => {
        await started;
        return keep(await line.send('look', {session, frame, now}, moved(frame)));
      },
      frame => {
        if ('close' in frame) frame.close();
        return {verdict: 'dropped', events: [], answer: null, ...known};
      },
    );
    return {
      look: (frame, now = seconds()) => newest.give(frame, now),
      tick: async (now = seconds()) => {
        await started;
        return keep(await line.send('tick', {session, now}));
      },
      reset: () => void started.then(() => line.send('resetSession', {session})).catch(() => {}),
    };
  }

  landmarks(languages: readonly string[] = []): Promise<readonly LandmarkInfo[]> {
    return this.line.send('landmarks', {languages: [...languages]});
  }

  landmark(slugOrName: string, languages: readonly string[] = []): Promise<LandmarkInfo | null> {
    return this.line.send('landmark', {key: slugOrName, languages: [...languages]});
  }

  media(slug: string, name: string): Promise<Blob | null> {
    return this.line.send('media', {slug, name});
  }

  thumbnail(imageId: number): Promise<Blob | null> {
    return this.line.send('thumbnail', {imageId});
  }

  close(): void {
    this.line.end();
  }
}

/** What of a photo is moved to the worker and not copied. */
function moved(photo: Photo): Transferable[] {
  return 'close' in photo ? [photo] : [];
}

export * from './errors.js';
