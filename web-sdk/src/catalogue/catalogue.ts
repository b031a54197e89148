/** What is known of landmarks, as `delf_edge/catalogue/reader.py` tells it. */

import {sha256} from '../files/sha256.js';
import {hex} from '../files/sha256.js';
import type {Database, Row} from '../storage/database.js';
import type {LandmarkInfo, MediaInfo} from '../types.js';
import {chooseLanguage} from './languages.js';
import {freeSlug, slugify} from './slugs.js';

const MEDIA_TYPES = ['image/jpeg', 'image/png', 'image/webp', 'audio/mpeg', 'audio/ogg', 'audio/flac', 'audio/wav', 'audio/mp4'];
const FIELDS = ['title', 'summary', 'body', 'link', 'audio'] as const;
type Texts = Map<string, Record<(typeof FIELDS)[number], string | null>>;

interface Entry {
  readonly row: Row;
  readonly details: Row | undefined;
  readonly slug: string;
  readonly texts: Texts;
  readonly media: readonly {readonly id: number; readonly info: MediaInfo; readonly sha256: string}[];
}

export class Catalogue {
  private readonly entries: readonly Entry[]; // by name

  constructor(private readonly database: Database) {
    const details = new Map(database.rows('landmark_details').map(row => [row.landmark_id, row]));
    const texts = grouped(database.rows('landmark_texts')), media = grouped(database.rows('media'));
    const taken = new Set([...details.values()].map(row => String(row.slug)));
    const entries = database.rows('landmarks').map((row): Entry => {
      const own = details.get(row.id), slug = own === undefined ? freeSlug(slugify(String(row.name)), taken) : String(own.slug);
      taken.add(slug);
      return {row, details: own, slug, texts: textsOf(texts.get(row.id) ?? []), media: mediaOf(media.get(row.id) ?? [])};
    });
    this.entries = entries.sort((a, b) => (String(a.row.name) < String(b.row.name) ? -1 : 1));
  }

  /** All languages of its texts. */
  get languages(): string[] {
    return [...new Set(this.entries.flatMap(entry => [...entry.texts.keys()]))].sort();
  }

  all(languages: readonly string[]): LandmarkInfo[] {
    return this.entries.map(entry => describe(entry, languages));
  }

  /** The landmark with this slug or name; null where there is none. */
  find(slugOrName: string, languages: readonly string[]): LandmarkInfo | null {
    const wanted = slugOrName.normalize('NFC');
    const entry = this.entries.find(e => e.slug === slugOrName) ?? this.entries.find(e => String(e.row.name).normalize('NFC') === wanted);
    return entry === undefined ? null : describe(entry, languages);
  }

  /** The landmark of this name. */
  named(name: string, languages: readonly string[]): LandmarkInfo | null {
    const entry = this.entries.find(e => e.row.name === name);
    return entry === undefined ? null : describe(entry, languages);
  }

  /** A picture or sound whose bytes are in the file and have their SHA-256; null where there is none. */
  async media(slug: string, name: string): Promise<Blob | null> {
    const item = this.entries.find(e => e.slug === slug)?.media.find(m => m.info.name === name);
    const data = item === undefined ? undefined : this.database.rows('media_data', {column: 'media_id', equals: item.id})[0]?.data;
    if (item === undefined || !(data instanceof Uint8Array) || (await sha256(data)) !== item.sha256) return null;
    return new Blob([data as Uint8Array<ArrayBuffer>], {type: item.info.type});
  }
}

function describe({row, details, slug, texts, media}: Entry, languages: readonly string[]): LandmarkInfo {
  const order = [...texts.keys()].sort(), language = chooseLanguage(order, languages), name = String(row.name);
  const ranked = language === null ? [] : [language, ...order.filter(tag => tag !== language)];
  const said = (field: (typeof FIELDS)[number]) => ranked.map(tag => texts.get(tag)![field]).find(value => value !== null) ?? null;
  const text = (value: unknown) => (value === null || value === undefined ? null : String(value));
  return {
    slug, name,
    title: said('title') ?? name,
    language,
    languages: order,
    summary: said('summary'),
    body: said('body'),
    link: said('link'),
    audio: language === null ? null : texts.get(language)!.audio,
    kind: text(details?.kind),
    collection: text(details?.collection),
    latitude: row.latitude as number | null,
    longitude: row.longitude as number | null,
    externalIds: details === undefined ? {} : (JSON.parse(String(details.external_ids)) as Record<string, string>),
    media: media.map(item => item.info),
  };
}

function grouped(rows: readonly Row[]): Map<unknown, Row[]> {
  const found = new Map<unknown, Row[]>();
  for (const row of rows) found.set(row.landmark_id, [...(found.get(row.landmark_id) ?? []), row]);
  return found;
}

function textsOf(rows: readonly Row[]): Texts {
  return new Map(rows.map(row => {
    const text = Object.fromEntries(FIELDS.map(field => [field, row[field] === null ? null : String(row[field])])) as ReturnType<Texts['get']> & object;
    const link = text.link !== null && /^https?:\/\//.test(text.link) ? text.link : null;
    return [String(row.language), {...text, link}];
  }));
}

function mediaOf(rows: readonly Row[]): Entry['media'] {
  return rows
    .filter(row => MEDIA_TYPES.includes(String(row.type)))
    .map(row => ({
      id: Number(row.id),
      info: {name: String(row.name), type: String(row.type), credit: row.credit === null ? null : String(row.credit)},
      sha256: hex(row.sha256 as Uint8Array),
    }))
    .sort((a, b) => (a.info.name < b.info.name ? -1 : 1));
}
