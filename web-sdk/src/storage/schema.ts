/** The schema of a database, word for word that of `delf_edge/storage/schema.py`; a test compares the two. */

export const APPLICATION_ID = 0x44454c46, SCHEMA_VERSION = 2;

/** Version -> what it adds. */
export const SCHEMA: readonly string[] = [
  `CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc32 INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE landmarks (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, metadata TEXT NOT NULL,
    latitude REAL, longitude REAL, revision INTEGER NOT NULL, crc32 INTEGER NOT NULL);
CREATE TABLE images (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,
    landmark_id INTEGER NOT NULL REFERENCES landmarks (id), metadata TEXT NOT NULL,
    width INTEGER NOT NULL, height INTEGER NOT NULL, content_hash BLOB NOT NULL UNIQUE,
    added_at REAL NOT NULL, revision INTEGER NOT NULL, crc32 INTEGER NOT NULL);
CREATE INDEX images_landmark ON images (landmark_id);
CREATE INDEX images_revision ON images (revision);
CREATE TABLE codes (
    image_id INTEGER PRIMARY KEY REFERENCES images (id),
    n INTEGER NOT NULL, blob BLOB NOT NULL, crc32 INTEGER NOT NULL);
CREATE TABLE thumbnails (
    image_id INTEGER PRIMARY KEY REFERENCES images (id), jpeg BLOB NOT NULL, crc32 INTEGER NOT NULL);
CREATE TABLE tombstones (
    image_id INTEGER PRIMARY KEY, content_hash BLOB NOT NULL, revision INTEGER NOT NULL, crc32 INTEGER NOT NULL);
CREATE INDEX tombstones_revision ON tombstones (revision);`,
  `CREATE TABLE landmark_details (
    landmark_id INTEGER PRIMARY KEY REFERENCES landmarks (id), slug TEXT NOT NULL UNIQUE, kind TEXT, collection TEXT,
    external_ids TEXT NOT NULL, revision INTEGER NOT NULL, crc32 INTEGER NOT NULL);
CREATE TABLE landmark_texts (
    id INTEGER PRIMARY KEY AUTOINCREMENT, landmark_id INTEGER NOT NULL REFERENCES landmarks (id),
    language TEXT NOT NULL, title TEXT, summary TEXT, body TEXT, audio TEXT, link TEXT,
    revision INTEGER NOT NULL, crc32 INTEGER NOT NULL, UNIQUE (landmark_id, language));
CREATE TABLE media (
    id INTEGER PRIMARY KEY AUTOINCREMENT, landmark_id INTEGER NOT NULL REFERENCES landmarks (id),
    name TEXT NOT NULL, type TEXT NOT NULL, sha256 BLOB NOT NULL, path TEXT, credit TEXT,
    revision INTEGER NOT NULL, crc32 INTEGER NOT NULL, UNIQUE (landmark_id, name));
CREATE TABLE media_data (
    media_id INTEGER PRIMARY KEY REFERENCES media (id), data BLOB NOT NULL, crc32 INTEGER NOT NULL);
CREATE VIRTUAL TABLE landmark_texts_fts USING FTS5 (
    title, summary, body,
    tokenize='unicode61 remove_diacritics 2', content="landmark_texts", content_rowid="id");
CREATE VIEW places AS
    SELECT l.id, d.slug, l.name, d.kind, d.collection, l.latitude, l.longitude, d.external_ids, l.metadata,
        (SELECT count(*) FROM images i WHERE i.landmark_id = l.id) AS photos,
        (SELECT group_concat(t.language, ' ') FROM landmark_texts t WHERE t.landmark_id = l.id) AS languages,
        (SELECT count(*) FROM media m WHERE m.landmark_id = l.id) AS media
    FROM landmarks l LEFT JOIN landmark_details d ON d.landmark_id = l.id;
CREATE VIEW photos AS
    SELECT i.id, i.name, l.name AS place, d.slug AS place_slug, i.width, i.height, c.n AS features,
        datetime(i.added_at, 'unixepoch') AS added_at, i.metadata
    FROM images i JOIN landmarks l ON l.id = i.landmark_id LEFT JOIN landmark_details d ON d.landmark_id = l.id
        LEFT JOIN codes c ON c.image_id = i.id;`,
];

/** What SQLite makes for FTS5 by itself. */
export const SHADOWS: Readonly<Record<string, string>> = {
  landmark_texts_fts_data: `CREATE TABLE 'landmark_texts_fts_data'(id INTEGER PRIMARY KEY, block BLOB)`,
  landmark_texts_fts_idx: `CREATE TABLE 'landmark_texts_fts_idx'(segid, term, pgno, PRIMARY KEY(segid, term)) WITHOUT ROWID`,
  landmark_texts_fts_docsize: `CREATE TABLE 'landmark_texts_fts_docsize'(id INTEGER PRIMARY KEY, sz BLOB)`,
  landmark_texts_fts_config: `CREATE TABLE 'landmark_texts_fts_config'(k PRIMARY KEY, v) WITHOUT ROWID`,
};
