/**
 * Every error, in the tree of the Python SDK (`delf_edge/errors.py`) as far as a browser needs it. A message names what
 * was found, what was expected, and what to do. Errors keep their class on the way out of a worker.
 */

/** Base of every error that is raised on purpose. */
export class DelfEdgeError extends Error {
  override name = 'DelfEdgeError';
}

/** A photo cannot be used. */
export class ImageError extends DelfEdgeError {
  override name = 'ImageError';
}
/** Not an image, cut off, or of a form that this browser does not read. */
export class ImageDecodeError extends ImageError {
  override name = 'ImageDecodeError';
}
/** Its header declares more pixels than the cap. */
export class ImageTooLargeError extends ImageError {
  override name = 'ImageTooLargeError';
}

/** A model bundle cannot be used. */
export class BundleError extends DelfEdgeError {
  override name = 'BundleError';
}
/** A file of the bundle is missing, or its SHA-256 is not the manifest's. */
export class BundleIntegrityError extends BundleError {
  override name = 'BundleIntegrityError';
}
/** The bundle's format is newer than this SDK. */
export class BundleVersionError extends BundleError {
  override name = 'BundleVersionError';
}

/** LiteRT.js cannot be loaded (WebAssembly may be forbidden here), or it refused a network. */
export class EngineError extends DelfEdgeError {
  override name = 'EngineError';
}

/** A database cannot be used. */
export class StoreError extends DelfEdgeError {
  override name = 'StoreError';
}
/** The file is no delf-edge database, or it is cut off or malformed. */
export class NotADatabaseError extends StoreError {
  override name = 'NotADatabaseError';
}
/** The schema is newer than this SDK. */
export class SchemaVersionError extends StoreError {
  override name = 'SchemaVersionError';
}
/** The database was made with another bundle. */
export class BundleMismatchError extends StoreError {
  override name = 'BundleMismatchError';
}
/** A row that is needed does not have the CRC-32 it was written with. */
export class CorruptRowError extends StoreError {
  override name = 'CorruptRowError';
}
/** The file is not sealed: it may have a log beside it that holds its newest content. */
export class NotSealedError extends StoreError {
  override name = 'NotSealedError';
}

/** A pack cannot be used. */
export class PackError extends DelfEdgeError {
  override name = 'PackError';
}
/** A pack's bytes, or those of its manifest, are not what they were made as. */
export class PackIntegrityError extends PackError {
  override name = 'PackIntegrityError';
}

/** A file cannot be fetched. */
export class FetchError extends DelfEdgeError {
  override name = 'FetchError';
}
/** An option has a value outside its range. */
export class OptionError extends DelfEdgeError {
  override name = 'OptionError';
}
/** The recogniser was closed. */
export class ClosedError extends DelfEdgeError {
  override name = 'ClosedError';
}

const KINDS: Readonly<Record<string, new (message: string) => DelfEdgeError>> = {
  DelfEdgeError,
  ImageError,
  ImageDecodeError,
  ImageTooLargeError,
  BundleError,
  BundleIntegrityError,
  BundleVersionError,
  EngineError,
  StoreError,
  NotADatabaseError,
  SchemaVersionError,
  BundleMismatchError,
  CorruptRowError,
  NotSealedError,
  PackError,
  PackIntegrityError,
  FetchError,
  OptionError,
  ClosedError,
};

/** An error of the class of this name; of an unknown name a plain `Error`. */
export function errorOf(name: string, message: string): Error {
  const kind = KINDS[name];
  return kind === undefined ? new Error(`${name}: ${message}`) : new kind(message);
}
