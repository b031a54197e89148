/**
 * A pack or sealed database, read from memory by SQLite's own WebAssembly. Nothing is believed before it was compared: the
 * header, the schema to the letter, and the CRC-32 of every row that is read.
 *
 * Rules as in `delf_edge/storage`: a damaged row of the table meta refuses the file, any other damaged row is left out and
 * noted.
 */

import type {Database as SqliteDatabase, PreparedStatement, Sqlite3Static} from '@sqlite.org/sqlite-wasm';

import {BundleMismatchError, CorruptRowError, DelfEdgeError, NotADatabaseError, NotSealedError, SchemaVersionError} from '../errors.js';
import {crc32} from '../files/crc32.js';
import {messageOf} from '../files/fetch.js';
import {type Codes, type CodeLayout, unpackCodes} from '../quantization/codes.js';
import {APPLICATION_ID, SCHEMA, SCHEMA_VERSION, SHADOWS} from './schema.js';

export type Value = number | bigint | string | Uint8Array | null;
/** A row by column, without its checksum. */
export type Row = Readonly<Record<string, Value>>;

/** The first column is the key; `crc32` follows the last. */
const TABLES = {
  meta: ['key', 'value'],
  landmarks: ['id', 'name', 'metadata', 'latitude', 'longitude', 'revision'],
  images: ['id', 'name', 'landmark_id', 'metadata', 'width', 'height', 'content_hash', 'added_at', 'revision'],
  codes: ['image_id', 'n', 'blob'],
  thumbnails: ['image_id', 'jpeg'],
  landmark_details: ['landmark_id', 'slug', 'kind', 'collection', 'external_ids', 'revision'],
  landmark_texts: ['id', 'landmark_id', 'language', 'title', 'summary', 'body', 'audio', 'link', 'revision'],
  media: ['id', 'landmark_id', 'name', 'type', 'sha256', 'path', 'credit', 'revision'],
  media_data: ['media_id', 'data'],
} as const;
export type Table = keyof typeof TABLES;

/** What a row must hold, by column: i number, f floating point, t text, b bytes, a capital letter allows NULL. */
const KINDS: Partial<Record<Table, string>> = {
  images: 'ititiibfi',
  landmarks: 'ittFFi',
  codes: 'iib',
  landmark_details: 'itTTti',
  landmark_texts: 'iitTTTTTi',
  media: 'iittbTTi',
  media_data: 'ib',
};
const JSON_COLUMN: Partial<Record<Table, string>> = {images: 'metadata', landmarks: 'metadata', landmark_details: 'external_ids'};
const NUMBERED: Partial<Record<Table, string>> = {
  landmarks: 'landmarks', landmark_details: 'landmarks', landmark_texts: 'landmark_texts', media: 'media', media_data: 'media',
};
const CATALOGUE: readonly Table[] = ['landmark_details', 'landmark_texts', 'media', 'media_data'];
const MAX_KEYS = 10_000_000;

/** An image of a database, its row and its codes sound. */
export interface StoredImage {
  readonly imageId: number;
  readonly name: string;
  readonly landmark: string;
  readonly codes: Codes;
}

export class Database {
  /** What is wrong with every damaged row met so far, by table and key. */
  readonly damaged = new Map<string, string>();
  readonly layout: CodeLayout;
  readonly bundleId: string;
  readonly uuid: string;
  readonly revision: number;
  readonly sealed: boolean;
  readonly schemaVersion: number;

  private constructor(private readonly sqlite: Sqlite3Static, private readonly db: SqliteDatabase, readonly name: string) {
    this.schemaVersion = Number(db.selectValue('PRAGMA user_version'));
    this.checkSchema();
    const meta = this.meta();
    const number = (key: string): number => {
      const text = meta.get(key);
      if (text === undefined || !/^\d+$/.test(text)) {
        throw new NotADatabaseError(`${name}: its table meta is incomplete or damaged at ${key}; fetch it again`);
      }
      return Number(text);
    };
    const text = (key: string): string => {
      const value = meta.get(key);
      if (value === undefined) throw new NotADatabaseError(`${name}: its table meta is incomplete or damaged at ${key}; fetch it again`);
      return value;
    };
    this.layout = {codeSize: number('code_size'), globalDim: number('global_dim'), nWords: number('n_words')};
    this.bundleId = text('bundle_id');
    this.uuid = text('uuid');
    this.sealed = text('sealed') === '1';
    this.revision = number('revision');
  }

  /**
   * Opens a database that was made with a bundle.
   *
   * @param name how messages call it.
   * @throws NotADatabaseError, NotSealedError, SchemaVersionError, CorruptRowError, BundleMismatchError.
   */
  static open(sqlite: Sqlite3Static, bytes: Uint8Array, name: string, bundleId: string, layout: CodeLayout): Database {
    checkFile(bytes, name);
    let db: SqliteDatabase | undefined;
    try {
      db = new sqlite.oo1.DB(':memory:', 'c');
      const at = sqlite.wasm.allocFromTypedArray(bytes), {capi} = sqlite;
      const flags = capi.SQLITE_DESERIALIZE_FREEONCLOSE | capi.SQLITE_DESERIALIZE_READONLY;
      const rc = capi.sqlite3_deserialize(db.pointer!, 'main', at, bytes.length, bytes.length, flags);
      if (rc) throw new NotADatabaseError(`${name}: SQLite does not take it (${capi.sqlite3_js_rc_str(rc)}); fetch it again`);
      for (const pragma of ['trusted_schema=0', 'cell_size_check=1', 'query_only=1']) db.exec(`PRAGMA ${pragma}`);
      const opened = new Database(sqlite, db, name);
      const theirs = opened.layout, same = (Object.keys(layout) as (keyof CodeLayout)[]).every(key => layout[key] === theirs[key]);
      if (opened.bundleId !== bundleId || !same) {
        throw new BundleMismatchError(
          `${name}: made with bundle ${opened.bundleId} (${show(theirs)}), the loaded bundle is ${bundleId} (${show(layout)}); ` +
            'load the bundle it was made with, or rebuild it with `delf-edge index`',
        );
      }
      return opened;
    } catch (e) {
      db?.close();
      throw e instanceof DelfEdgeError ? e : new NotADatabaseError(`${name}: not a database, or damaged (${messageOf(e)}); fetch it again`);
    }
  }

  close(): void {
    this.db.close();
  }

  /** Sound rows of a table by ascending key; damaged ones are left out and noted. */
  rows(table: Table, where?: {readonly column: string; readonly equals: Value}): Row[] {
    if (CATALOGUE.includes(table) && this.schemaVersion < 2) return [];
    const key = TABLES[table][0], select = `SELECT ${TABLES[table].join(', ')}, crc32 FROM ${table}`;
    try {
      return this.checked(table, where === undefined ? `${select} ORDER BY ${key}` : `${select} WHERE ${where.column} = ? ORDER BY ${key}`, where?.equals);
    } catch (e) {
      if (!this.isCorruption(e) || table === 'meta') throw e;
    }
    const found: Row[] = []; // after damage to a page: those that can be read one by one
    for (const id of this.keys(table)) {
      try {
        found.push(...this.checked(table, `${select} WHERE ${key} = ?`, id));
      } catch (e) {
        if (!this.isCorruption(e)) throw e;
        this.damaged.set(`${table} ${id}`, `${table} ${id} cannot be read (${messageOf(e)})`);
      }
    }
    return where === undefined ? found : found.filter(row => row[where.column] === where.equals);
  }

  /** All images whose rows, landmarks and codes are sound, ascending by id. */
  images(): StoredImage[] {
    const landmarks = new Map(this.rows('landmarks').map(row => [row.id, String(row.name)]));
    const codes = new Map(this.rows('codes').map(row => [row.image_id, row]));
    const found: StoredImage[] = [];
    for (const row of this.rows('images')) {
      const own = codes.get(row.id), landmark = landmarks.get(row.landmark_id), imageId = Number(row.id);
      if (own === undefined || landmark === undefined) continue;
      try {
        const unpacked = unpackCodes(own.blob as Uint8Array, this.layout);
        if (unpacked.n !== Number(own.n)) throw new RangeError('its count of features is wrong');
        found.push({imageId, name: String(row.name), landmark, codes: unpacked});
      } catch (e) {
        if (!(e instanceof RangeError)) throw e;
        this.damaged.set(`codes ${imageId}`, `codes of image ${imageId}: ${e.message}`);
      }
    }
    return found;
  }

  private meta(): Map<string, string> {
    const rows = this.rows('meta');
    const bad = [...this.damaged.keys()][0];
    if (bad !== undefined) throw new CorruptRowError(`${this.name}: ${bad} is damaged; fetch it again`);
    return new Map(rows.map(row => [String(row.key), String(row.value)]));
  }

  /** Rows of a query, each compared with its checksum. */
  private checked(table: Table, sql: string, bound?: Value): Row[] {
    const columns = TABLES[table], found: Row[] = [], statement = this.db.prepare(sql);
    try {
      if (bound !== undefined) statement.bind(bound);
      while (statement.step()) {
        const types = columns.map((_, i) => this.sqlite.capi.sqlite3_column_type(statement.pointer!, i));
        const values = columns.map((_, i) => valueOf(statement, i)), crc = statement.get(columns.length);
        const what = this.damage(table, types, values, crc);
        if (what !== null) this.damaged.set(`${table} ${String(values[0])}`, what);
        else found.push(Object.fromEntries(columns.map((column, i) => [column, values[i]])));
      }
    } finally {
      statement.finalize();
    }
    return found;
  }

  /** What is wrong with a row; null where nothing is. */
  private damage(table: Table, types: readonly number[], values: readonly Value[], crc: unknown): string | null {
    const {SQLITE_INTEGER, SQLITE_FLOAT, SQLITE_TEXT, SQLITE_BLOB} = this.sqlite.capi;
    const tags = types.map(type => new Map([[SQLITE_INTEGER, 'i'], [SQLITE_FLOAT, 'f'], [SQLITE_TEXT, 't'], [SQLITE_BLOB, 'b']]).get(type as never) ?? 'n');
    if (rowCrc32(table, tags, values) !== Number(crc)) {
      return `${table} ${String(values[0])} is damaged: the CRC-32 of its row is not ${String(crc)}`;
    }
    const kinds = KINDS[table] ?? '';
    const ours = [...kinds].every((kind, i) => tags[i] === kind.toLowerCase() || (tags[i] === 'n' && kind !== kind.toLowerCase()));
    const json = JSON_COLUMN[table], column = json === undefined ? -1 : (TABLES[table] as readonly string[]).indexOf(json);
    if (ours && (column < 0 || isObject(values[column]))) return null;
    return `${table} ${String(values[0])} has the right CRC-32, and values of another kind`;
  }

  /** All keys of a table; where its pages are damaged, every key it may have had. */
  private keys(table: Table): number[] {
    const key = TABLES[table][0];
    try {
      return this.db.selectValues(`SELECT ${key} FROM ${table} ORDER BY ${key}`).map(Number);
    } catch (e) {
      if (!this.isCorruption(e)) throw e;
    }
    const last = Number(this.db.selectValue('SELECT seq FROM sqlite_sequence WHERE name = ?', [NUMBERED[table] ?? 'images']));
    if (!(last <= MAX_KEYS)) throw new NotADatabaseError(`${this.name}: damaged, not even its numbering can be read; fetch it again`);
    return Array.from({length: last}, (_, i) => i + 1);
  }

  private isCorruption(e: unknown): boolean {
    const {SQLITE_CORRUPT, SQLITE_NOTADB} = this.sqlite.capi, code = (e as {resultCode?: number}).resultCode ?? 0;
    return [SQLITE_CORRUPT, SQLITE_NOTADB].includes((code & 0xff) as never);
  }

  /** The schema must be ours to the letter: no trigger, view or column that a stranger added. */
  private checkSchema(): void {
    const {db, name, schemaVersion} = this, application = Number(db.selectValue('PRAGMA application_id'));
    if (application !== APPLICATION_ID) {
      throw new NotADatabaseError(`${name}: a SQLite file of another program (application id 0x${application.toString(16)})`);
    }
    if (schemaVersion > SCHEMA_VERSION) {
      throw new SchemaVersionError(`${name}: schema version ${schemaVersion}; this delf-edge reads up to ${SCHEMA_VERSION}, install a newer one`);
    }
    if (schemaVersion < 1) throw new SchemaVersionError(`${name}: no schema yet; open it once for writing`);
    const expected = new this.sqlite.oo1.DB(':memory:', 'c');
    try {
      for (const script of SCHEMA.slice(0, schemaVersion)) {
        for (const statement of script.split(';\n')) expected.exec(statement); // as Python: no semicolon is kept
      }
      const ours = entries(expected), theirs = entries(db);
      const strange = [...theirs.keys()].filter(e => !ours.has(e)).concat([...ours.keys()].filter(e => !theirs.has(e)));
      if (strange.length) {
        const names = [...new Set(strange.map(e => ours.get(e) ?? theirs.get(e)!))].sort().join(', ');
        throw new NotADatabaseError(`${name}: its schema differs from version ${schemaVersion} of delf-edge in: ${names}`);
      }
    } finally {
      expected.close();
    }
  }
}

/** The schema's entries, each as a text -> kind and name. */
function entries(db: SqliteDatabase): Map<string, string> {
  const rows = db.selectArrays('SELECT type, name, tbl_name, sql FROM sqlite_master') as [string, string, string, string | null][];
  return new Map(rows.map(([kind, name, table, sql]) => [
    JSON.stringify([kind, name, table, sql !== null && sql === SHADOWS[name] ? null : sql]), `${kind} ${name}`,
  ]));
}

/** Refuses what SQLite would only notice later, or never. */
function checkFile(bytes: Uint8Array, name: string): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), magic = 'SQLite format 3\0';
  if (bytes.length < 100 || new TextDecoder('latin1').decode(bytes.subarray(0, 16)) !== magic) {
    throw new NotADatabaseError(`${name}: ${bytes.length} bytes that are not a delf-edge database`);
  }
  const page = view.getUint16(16), expected = view.getUint32(28) * (page === 1 ? 65536 : page);
  if (bytes.length < expected) {
    throw new NotADatabaseError(`${name}: cut off, ${bytes.length} of ${expected} bytes are left; fetch it again`);
  }
  if (view.getUint8(18) === 2 || view.getUint8(19) === 2) {
    throw new NotSealedError(
      `${name}: not sealed; its newest content may lie in a log beside it. Cut a pack with \`delf-edge pack\`, or seal a copy with \`delf-edge seal\``,
    );
  }
}

function valueOf(statement: PreparedStatement, i: number): Value {
  const value = statement.get(i);
  return value instanceof ArrayBuffer ? new Uint8Array(value) : (value as Value);
}

/** CRC-32 of the table's name and the values, each as a tag and its bytes (`schema.row_bytes`). */
export function rowCrc32(table: string, tags: readonly string[], values: readonly Value[]): number {
  const utf8 = new TextEncoder(), head = new DataView(new ArrayBuffer(9));
  let crc = crc32(utf8.encode(table));
  const eat = (bytes: Uint8Array) => {
    crc = crc32(bytes, crc);
  };
  values.forEach((value, i) => {
    const tag = tags[i];
    head.setUint8(0, tag.charCodeAt(0));
    if (tag === 'n') eat(new Uint8Array(head.buffer, 0, 1));
    else if (tag === 'i' || tag === 'f') {
      if (tag === 'i') head.setBigInt64(1, BigInt(value as number | bigint), true);
      else head.setFloat64(1, Number(value), true);
      eat(new Uint8Array(head.buffer));
    } else {
      const bytes = tag === 't' ? utf8.encode(String(value)) : (value as Uint8Array);
      head.setUint32(1, bytes.length, true);
      eat(new Uint8Array(head.buffer, 0, 5));
      eat(bytes);
    }
  });
  return crc;
}

function isObject(value: Value): boolean {
  try {
    const parsed: unknown = JSON.parse(String(value));
    return typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed);
  } catch {
    return false;
  }
}

function show({codeSize, globalDim, nWords}: CodeLayout): string {
  return `codes of ${codeSize} bytes, ${globalDim} global dimensions, ${nWords} words`;
}
