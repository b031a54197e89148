/**
 * A recogniser for tests of the page: fetches the real files, and tells three places by the colour of the photo. It is
 * in no built page; `visit/build.js --fake` puts it there.
 */

import {BundleError, FetchError, ImageError, NotADatabaseError} from '../../src/errors.js';
import type {Answer, FrameResult, LandmarkInfo, OpenOptions, Photo, Recognizer, SessionEvent} from '../../src/types.js';

export * from '../../src/errors.js';

const TEXTS: Readonly<Record<string, Readonly<Record<string, readonly [string, string]>>>> = {
  red: {
    en: ['Red tower', 'A tower of red stone.\n\nIt was built in two years.'],
    de: ['Roter Turm', 'Ein Turm aus rotem Stein.'],
    ar: ['البرج الأحمر', 'برج من الحجر الأحمر.'],
  },
  green: {en: ['Green garden', 'A garden with a long name: Taumatawhakatangihangakoauauotamateaturipukakapiki.']},
  blue: {},
};

function infoOf(slug: string, languages: readonly string[]): LandmarkInfo {
  const texts = TEXTS[slug];
  const language = languages.find(tag => tag in texts) ?? Object.keys(texts)[0] ?? null;
  const [title, summary] = language === null ? [slug, null] : texts[language];
  return {
    slug, name: slug, title, language, languages: Object.keys(texts), summary, body: null,
    link: slug === 'red' ? 'https://red.example/' : 'javascript:alert(1)', audio: null, kind: null, collection: null,
    latitude: null, longitude: null, externalIds: {},
    media: slug === 'red' ? [{name: 'red.png', type: 'image/png', credit: 'A. Painter'}] : [],
  };
}

async function fetched(url: string, options: Omit<OpenOptions, 'bundle'>): Promise<ArrayBuffer> {
  const answer = await fetch(url).catch(error => Promise.reject(new FetchError(`${url}: ${error}`)));
  if (!answer.ok) throw new FetchError(`${url}: status ${answer.status}`);
  const data = await answer.arrayBuffer();
  options.onProgress?.({file: url, done: data.byteLength, total: data.byteLength});
  return data;
}

/** As `openInWorker` of the SDK. */
export async function openInWorker(_worker: string | URL, options: OpenOptions): Promise<Recognizer> {
  const manifest = JSON.parse(new TextDecoder().decode(await fetched(`${options.bundle}manifest.json`, options)));
  if (typeof manifest.name !== 'string') throw new BundleError('manifest.json has no name');
  const database = new Uint8Array(await fetched(String(options.database), options));
  if (new TextDecoder().decode(database.subarray(0, 15)) !== 'SQLite format 3') throw new NotADatabaseError('no database');

  async function colour(photo: Photo): Promise<{slug: string | null; size: [number, number]}> {
    const bitmap = await createImageBitmap(photo as ImageBitmapSource).catch(() => {
      throw new ImageError('this is no image');
    });
    const canvas = new OffscreenCanvas(1, 1);
    const drawn = canvas.getContext('2d')!;
    drawn.drawImage(bitmap, 0, 0, 1, 1);
    const [r, g, b] = drawn.getImageData(0, 0, 1, 1).data;
    const most = Math.max(r, g, b);
    const slug = most < 60 || most - Math.min(r, g, b) < 40 ? null : r === most ? 'red' : g === most ? 'green' : 'blue';
    return {slug, size: [bitmap.width, bitmap.height]};
  }

  async function identify(photo: Photo, {languages = []}: {languages?: readonly string[]} = {}): Promise<Answer> {
    const {slug, size} = await colour(photo);
    const points = Float32Array.from({length: 80}, (_, i) => (i % 2 ? size[1] : size[0]) * (0.1 + 0.01 * i));
    return {
      landmark: slug, image: slug, probability: slug === null ? 0.1 : slug === 'green' ? 0.8 : 0.99, nInliers: slug === null ? 0 : 40,
      reason: 'its colour', results: [], info: slug === null ? null : infoOf(slug, languages), milliseconds: {total: 1},
      proof: slug === null ? null : {
        imageId: 1, querySize: size, storedSize: size, query: points, stored: points, transform: new Float64Array(6), turned: 0,
      },
    };
  }

  return {
    info: {
      bundleId: '0', bundleName: manifest.name, databaseUuid: '0', revision: 1, pack: null, nImages: 3, nLandmarks: 3,
      nFeatures: 3, languages: ['en', 'de', 'ar'], damaged: [], preset: 'fast', accelerator: 'wasm', threads: 1, milliseconds: {},
    },
    identify,
    session(sessionOptions) {
      let present: string | null = null;
      const nothing = (): FrameResult =>
        ({verdict: 'look', events: [], answer: null, state: 'looking', present: present === null ? [] : [present]});
      return {
        async look(frame) {
          const answer = await identify(frame, sessionOptions?.identify);
          const events: SessionEvent[] = [];
          if (answer.landmark !== present) {
            if (answer.landmark === null) events.push({kind: 'left', landmark: present!, previous: null, answer: null});
            else events.push({kind: present === null ? 'appeared' : 'changed', landmark: answer.landmark, previous: present, answer});
          }
          present = answer.landmark;
          return {...nothing(), events, answer, state: present === null ? 'unknown' : 'present'};
        },
        tick: async () => nothing(),
        reset: () => void (present = null),
      };
    },
    landmarks: async languages => Object.keys(TEXTS).map(slug => infoOf(slug, languages ?? [])),
    landmark: async (slug, languages) => (slug in TEXTS ? infoOf(slug, languages ?? []) : null),
    async media(slug) {
      const canvas = new OffscreenCanvas(320, 200);
      const drawn = canvas.getContext('2d')!;
      drawn.fillStyle = slug;
      drawn.fillRect(0, 0, 320, 200);
      return await canvas.convertToBlob({type: 'image/png'});
    },
    thumbnail: async () => null,
    close() {},
  };
}
