/** The visitor's page: a photo or the camera in, the place and what is known of it out, all on this phone. */

import {ClosedError, DelfEdgeError, EngineError, FetchError, ImageError, openInWorker} from 'delf-edge';
import type {Answer, LandmarkInfo, Recognizer} from 'delf-edge';
import {CameraView} from './camera.js';
import {clearCard, offerPoints, showPlace, showUnknown} from './card.js';
import {forget, foundToday, remember, type Found} from './found.js';
import {choose, first, language, LANGUAGES, number, say, timeOfDay, wanted} from './languages.js';
import {keepForLater} from './offline.js';
import {get, notice, show, trouble} from './page.js';
import {parseRelease, type Release} from './release.js';

let release: Release;
let opening: Promise<Recognizer> | null = null;
let camera: CameraView | null = null;
let shown: {info: LandmarkInfo; answer: Answer | null} | null = null;

// ---------------------------------------------------------------- what is loaded

function onProgress(done: ReadonlyMap<string, number>, total: number): void {
  const bytes = [...done.values()].reduce((sum, value) => sum + value, 0);
  const bar = get<HTMLProgressElement>('progress');
  bar.max = Math.max(total, bytes);
  bar.value = bytes;
  get('loading-text').textContent = say('loading', {done: number(bytes / 1e6, 1), total: number(bar.max / 1e6, 1)});
}

function bytesToLoad(): number {
  const names = Object.keys(release.files).filter(name => name === release.database || name.startsWith(release.bundle));
  return names.reduce((sum, name) => sum + release.files[name].bytes, 0);
}

/** The recogniser; loaded once. After a failure the next call tries again. */
function recognizer(): Promise<Recognizer> {
  if (opening !== null) return opening;
  const done = new Map<string, number>();
  show('loading', true);
  show('progress', true);
  show('load', false);
  onProgress(done, bytesToLoad());
  const here = (path: string) => new URL(path, document.baseURI).href;
  opening = openInWorker(here('worker.js'), {
    bundle: here(release.bundle),
    database: here(release.database),
    manifest: release.manifest === null ? null : here(release.manifest),
    wasm: here('wasm/'),
    variant: release.variant ?? undefined,
    onProgress: progress => {
      done.set(progress.file, progress.done);
      onProgress(done, bytesToLoad());
    },
  });
  opening.then(
    opened => {
      show('loading', false);
      trouble('');
      const {nLandmarks, bundleName} = opened.info;
      get('about').textContent = say('about', {places: number(nLandmarks), bundle: bundleName});
      get('about').dataset.places = String(nLandmarks);
      get('about').dataset.bundle = bundleName;
    },
    error => {
      opening = null;
      show('loading', false);
      trouble(reasonOf(error));
    },
  );
  return opening;
}

/** An error in the visitor's words, with the cause for whoever runs the page. */
function reasonOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  if (error instanceof ImageError) return say('badPhoto');
  if (error instanceof EngineError) return `${say('noWebAssembly')} (${text})`;
  if (error instanceof FetchError || !navigator.onLine) return `${say('noNetwork')} (${text})`;
  if (error instanceof DelfEdgeError) return `${say('badData')} (${text})`;
  return `${say('broken')} (${text})`;
}

// ---------------------------------------------------------------- a photo

async function askPhoto(photo: Blob): Promise<void> {
  clearCard();
  shown = null;
  trouble('');
  try {
    const opened = await recognizer();
    notice(say('thinking'));
    await showAnswer(opened, photo, await opened.identify(photo, {languages: wanted()}));
  } catch (error) {
    if (!(error instanceof ClosedError)) trouble(reasonOf(error));
  } finally {
    notice('');
  }
}

async function showAnswer(opened: Recognizer, photo: Blob | null, answer: Answer): Promise<void> {
  document.documentElement.dataset.milliseconds = JSON.stringify(answer.milliseconds);
  if (answer.landmark === null) {
    shown = null;
    showUnknown();
  } else {
    const info = answer.info ?? (await opened.landmark(answer.landmark, wanted())) ?? bare(answer.landmark);
    shown = {info, answer};
    await showPlace(opened, info, answer);
    listFound(remember({slug: info.slug, title: info.title, time: Date.now()}));
  }
  if (photo !== null) offerPoints(photo, answer);
  get('card').focus({preventScroll: true});
  get('card').scrollIntoView({block: 'start', behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth'});
}

/** A landmark that the catalogue has no row of. */
function bare(name: string): LandmarkInfo {
  return {
    slug: name, name, title: name, language: null, languages: [], summary: null, body: null, link: null, audio: null, kind: null,
    collection: null, latitude: null, longitude: null, externalIds: {}, media: [],
  };
}

// ---------------------------------------------------------------- the camera

async function openCamera(): Promise<void> {
  trouble('');
  if (navigator.mediaDevices === undefined) return trouble(say('noSecureCamera'));
  notice(say('askCamera'));
  try {
    const opened = await recognizer();
    camera ??= new CameraView(opened, (result, frame) => void onFrame(opened, result, frame), reason => {
      closeCamera();
      trouble(reason === 'cameraGone' ? say('cameraGone') : `${say('broken')} (${reason})`);
    });
    show('camera', true);
    show('start', false);
    clearCard();
    await camera.start();
    get('close-camera').focus({preventScroll: true});
  } catch (error) {
    closeCamera();
    const name = (error as Error).name;
    if (name === 'NotAllowedError' || name === 'SecurityError') trouble(say('cameraForbidden'));
    else if (name === 'NotFoundError' || name === 'OverconstrainedError') trouble(say('noCamera'));
    else if (name === 'NotReadableError' || name === 'AbortError') trouble(say('cameraBusy'));
    else trouble(reasonOf(error));
  } finally {
    notice('');
  }
}

type Frames = ConstructorParameters<typeof CameraView>[1];

async function onFrame(opened: Recognizer, result: Parameters<Frames>[0], frame: () => Promise<Blob | null>): Promise<void> {
  for (const event of result.events) {
    if (event.kind === 'left') {
      clearCard();
      shown = null;
    } else if (event.answer !== null) {
      await showAnswer(opened, await frame(), event.answer);
    }
  }
}

function closeCamera(): void {
  camera?.stop();
  show('camera', false);
  show('start', true);
}

// ---------------------------------------------------------------- today

function listFound(list: readonly Found[]): void {
  show('found', list.length > 0);
  get('found-list').replaceChildren(...list.map(place => {
    const item = document.createElement('li');
    const button = document.createElement('button');
    button.type = 'button';
    const title = document.createElement('span');
    title.textContent = place.title;
    title.dir = 'auto';
    const time = document.createElement('time');
    time.dateTime = new Date(place.time).toISOString();
    time.textContent = timeOfDay(place.time);
    button.append(title, time);
    button.onclick = () => void openFound(place);
    item.append(button);
    return item;
  }));
}

async function openFound(place: Found): Promise<void> {
  try {
    const opened = await recognizer();
    const info = await opened.landmark(place.slug, wanted());
    if (info === null) return trouble(say('goneFromList', {place: place.title}));
    shown = {info, answer: null};
    await showPlace(opened, info, null);
    get('card').focus({preventScroll: true});
    get('card').scrollIntoView({block: 'start'});
  } catch (error) {
    trouble(reasonOf(error));
  }
}

// ---------------------------------------------------------------- the beginning

async function changeLanguage(tag: string): Promise<void> {
  try {
    await choose(tag);
  } catch (error) {
    get<HTMLSelectElement>('language').value = language();
    return trouble(reasonOf(error));
  }
  document.title = release.title ?? say('pageTitle');
  get('title').textContent = document.title;
  const {places, bundle} = get('about').dataset;
  if (places !== undefined) get('about').textContent = say('about', {places: number(Number(places)), bundle: bundle!});
  listFound(foundToday());
  if (shown !== null && opening !== null) {
    const opened = await opening;
    const info = (await opened.landmark(shown.info.slug, wanted())) ?? shown.info;
    shown = {info, answer: shown.answer};
    await showPlace(opened, info, shown.answer);
  }
}

async function begin(): Promise<void> {
  const select = get<HTMLSelectElement>('language');
  for (const [tag, name] of Object.entries(LANGUAGES)) select.add(new Option(name, tag));
  const kept = await keepForLater(() => show('update', true));
  const answer = await fetch('app.json', {cache: 'no-cache'});
  release = parseRelease(await answer.json());
  select.value = first();
  await changeLanguage(select.value);
  select.onchange = () => void changeLanguage(select.value);
  get('reload').onclick = () => location.reload();
  get('open-camera').onclick = () => void openCamera();
  get('close-camera').onclick = () => {
    closeCamera();
    get('open-camera').focus();
  };
  get('again').onclick = () => {
    clearCard();
    shown = null;
    get(camera?.open ? 'close-camera' : 'open-camera').focus();
  };
  get('forget').onclick = () => {
    forget();
    listFound([]);
    get('open-camera').focus();
  };
  const input = get<HTMLInputElement>('photo');
  input.onchange = () => {
    const file = input.files?.[0];
    input.value = '';
    if (file !== undefined) void askPhoto(file);
  };
  if (!kept) notice(say(isSecureContext ? 'notKept' : 'notSecure'));
  document.documentElement.dataset.ready = String(kept);
  if ((navigator as {connection?: {saveData?: boolean}}).connection?.saveData === true) {
    show('loading', true);
    show('progress', false);
    show('load', true);
    get('loading-text').textContent = say('askLoad');
    get('load').textContent = say('load', {total: number(bytesToLoad() / 1e6, 1)});
    get('load').onclick = () => void recognizer().catch(() => undefined);
  } else {
    recognizer().catch(() => undefined); // the line of trouble says why
  }
}

begin().catch(error => {
  trouble(`This page could not start. Reload it, with a network. (${error instanceof Error ? error.message : error})`);
});
