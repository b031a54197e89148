/** What Python refuses is refused here, by the same kind of error; what it passes over is passed over. */

import assert from 'node:assert/strict';
import {before, test} from 'node:test';
import {join} from 'node:path';

import {loadBundle} from '../src/bundle/bundle.js';
import {BundleError, BundleIntegrityError, BundleMismatchError, BundleVersionError, CorruptRowError, ImageDecodeError, ImageTooLargeError, NotADatabaseError, NotSealedError, OptionError, PackError, PackIntegrityError, SchemaVersionError} from '../src/errors.js';
import {dumpJson, floatRepr, parseJson} from '../src/files/python_json.js';
import {checkHeader, DEFAULT_LIMITS, takeOrientation} from '../src/images/headers.js';
import {Database} from '../src/storage/database.js';
import {checkPack, parsePackManifest} from '../src/storage/pack_manifest.js';
import {loadSqlite} from '../src/storage/sqlite.js';
import {bundleFiles, bytesOf, VECTORS} from './vectors.js';

const pack = bytesOf(join(VECTORS, 'demo.pack')), manifest = bytesOf(join(VECTORS, 'demo.pack.json'));
const layout = {codeSize: 12, globalDim: 384, nWords: 8192};
let bundleId = '', sqlite: Awaited<ReturnType<typeof loadSqlite>>;

before(async () => {
  sqlite = await loadSqlite(null);
  bundleId = (await loadBundle(bundleFiles())).manifest.id;
});

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes), utf8 = (t: string) => new TextEncoder().encode(t);
const flipped = (bytes: Uint8Array, at: number) => bytes.map((b, i) => (i === at ? b ^ 1 : b));
const opened = (bytes: Uint8Array, id = bundleId) => Database.open(sqlite, bytes, 'x.db', id, layout);
const at = (what: string) => Buffer.from(pack).indexOf(what);

/** The bundle with some files replaced, the manifest in step unless it is one of them. */
function changed(edit: (raw: Record<string, unknown>) => void): Map<string, Uint8Array> {
  const files = bundleFiles(), raw = JSON.parse(text(files.get('manifest.json')!)) as Record<string, unknown>;
  delete raw.id;
  edit(raw);
  return files.set('manifest.json', utf8(JSON.stringify(raw)));
}

test('a bundle: every file that is read is compared', async () => {
  for (const name of ['codebook.npz', 'cohort.npz', 'local_float16.tflite', 'tail_dynamic_range.tflite']) {
    const files = bundleFiles();
    await assert.rejects(loadBundle(files.set(name, flipped(files.get(name)!, 1000))), BundleIntegrityError, name);
    await assert.rejects(loadBundle(files.set(name, files.get(name)!.subarray(0, 500))), BundleIntegrityError, name);
    files.delete(name);
    await assert.rejects(loadBundle(files), BundleIntegrityError, name);
  }
});

test('a bundle: the manifest', async () => {
  const files = bundleFiles(), said = text(files.get('manifest.json')!);
  await assert.rejects(loadBundle(files.set('manifest.json', utf8(said.replace('"threshold": 0.', '"threshold": 0.1')))), BundleIntegrityError);
  await assert.rejects(loadBundle(files.set('manifest.json', utf8(said.slice(0, -9)))), BundleError);
  await assert.rejects(loadBundle(new Map()), BundleError);
  await assert.rejects(loadBundle(changed(raw => (raw.format = 'other'))), BundleError);
  await assert.rejects(loadBundle(changed(raw => (raw.format_version = 2))), BundleVersionError);
  await assert.rejects(loadBundle(changed(raw => delete raw.presets)), BundleError);
  await assert.rejects(loadBundle(changed(raw => (raw.codebook = 'nothing.npz'))), BundleError);
  await assert.rejects(loadBundle(changed(raw => (raw.calibration = {votes: 'many'}))), BundleError);
  await assert.rejects(loadBundle(changed(raw => (raw.calibration = {vote: 1}))), BundleError);
  await assert.rejects(loadBundle(bundleFiles(), 'int4'), OptionError);
  assert.equal((await loadBundle(bundleFiles(), 'int8')).manifest.id, bundleId);
});

test('a pack: bytes and manifest', async () => {
  const facts = await parsePackManifest(manifest, 'm');
  await checkPack(pack, facts, 'p');
  await assert.rejects(checkPack(flipped(pack, 50_000), facts, 'p'), PackIntegrityError);
  await assert.rejects(checkPack(pack.subarray(0, 50_000), facts, 'p'), PackIntegrityError);
  const said = text(manifest);
  await assert.rejects(parsePackManifest(utf8(said.replace('"version": 1', '"version": 2')), 'm'), PackIntegrityError);
  await assert.rejects(parsePackManifest(utf8(`${said} `), 'm'), PackIntegrityError);
  await assert.rejects(parsePackManifest(utf8(said.slice(9)), 'm'), PackIntegrityError);
  await assert.rejects(parsePackManifest(utf8('{"format": 2}'), 'm'), (e: Error) => e instanceof PackError && !(e instanceof PackIntegrityError));
});

test('a database: what is none, cut off, not sealed, newer, or of another bundle', () => {
  assert.equal(opened(pack).images().length, 8);
  assert.throws(() => opened(utf8('no database at all')), NotADatabaseError);
  assert.throws(() => opened(pack.subarray(0, pack.length - 1024)), NotADatabaseError);
  const wal = pack.slice();
  wal[18] = wal[19] = 2;
  assert.throws(() => opened(wal), NotSealedError);
  const newer = pack.slice();
  newer[63] = 9; // user_version
  assert.throws(() => opened(newer), SchemaVersionError);
  const other = pack.slice();
  other[71] ^= 1; // application_id
  assert.throws(() => opened(other), NotADatabaseError);
  assert.throws(() => opened(pack, '000000000000'), BundleMismatchError);
});

test('a database: a strange schema, and one flipped byte wherever it lies', () => {
  assert.throws(() => opened(flipped(pack, at('latitude REAL, longitude'))), NotADatabaseError);
  assert.throws(() => opened(flipped(pack, at('bundle_id') + 11)), CorruptRowError);
  const name = opened(flipped(pack, at('Petra/photo.webp') + 3));
  assert.equal(name.images().length, 7);
  assert.equal(name.damaged.size, 1);
  let missed = 0, passedOver = 0;
  for (let i = 150; i < pack.length; i += 1499) {
    try {
      const images = opened(flipped(pack, i)).images();
      if (images.length < 8) passedOver++;
      else missed++; // free space, an index that is not used, or a row that no answer needs
    } catch (e) {
      assert.ok(e instanceof NotADatabaseError || e instanceof CorruptRowError, String(e));
    }
  }
  assert.ok(passedOver > missed, `${passedOver} noticed, ${missed} without an effect`);
});

test('a photo: cut off, something else, too large', () => {
  const png = Uint8Array.from([137, 80, 78, 71, 13, 10, 26, 10, 0, 0, 0, 13, 73, 72, 68, 82, 0, 0, 255, 255, 0, 0, 255, 255, 8, 2, 0, 0, 0]);
  assert.throws(() => checkHeader(new Uint8Array(0), DEFAULT_LIMITS), ImageDecodeError);
  assert.throws(() => checkHeader(png.subarray(0, 20), DEFAULT_LIMITS), ImageDecodeError);
  assert.throws(() => checkHeader(png, DEFAULT_LIMITS), ImageTooLargeError);
  assert.throws(() => checkHeader(utf8('GIF89a......'), DEFAULT_LIMITS), /a GIF/);
  assert.throws(() => checkHeader(utf8('hello, I am a text'), DEFAULT_LIMITS), /text, beginning with/);
  assert.throws(() => checkHeader(Uint8Array.from([255, 216, 255, 192, 0, 11, 8, 0, 9, 0, 9, 1]), DEFAULT_LIMITS), ImageDecodeError);
});

test('a photo: the orientation is taken out of the file', () => {
  const tiff = [73, 73, 42, 0, 8, 0, 0, 0, 1, 0, 18, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0], exif = [69, 120, 105, 102, 0, 0, ...tiff];
  const jpeg = Uint8Array.from([255, 216, 255, 225, 0, exif.length + 2, ...exif, 255, 217]);
  const {orientation, file} = takeOrientation(jpeg, 'JPEG');
  assert.equal(orientation, 6);
  assert.equal(takeOrientation(file, 'JPEG').orientation, 1);
  assert.equal(file.length, jpeg.length);
});

test('JSON is written as Python writes it', () => {
  const said = '{"b": [1.0, 1e16, 1e-5, -0.0, 12345678901234567890, 0.0001, 100], "a": {"é": "\\u00e9\\n\\u2028", "z": null}, "a2": []}';
  assert.equal(
    dumpJson(parseJson(said)),
    '{"a":{"z":null,"\\u00e9":"\\u00e9\\n\\u2028"},"a2":[],"b":[1.0,1e+16,1e-05,-0.0,12345678901234567890,0.0001,100]}',
  );
  assert.deepEqual([0.1, 1e22, 123456.5, 5e-324].map(floatRepr), ['0.1', '1e+22', '123456.5', '5e-324']);
});
