/** `app.json`: what `delf-edge webapp` or the service wrote down of the files that belong together. */

export interface ReleaseFile {
  readonly sha256: string;
  readonly bytes: number;
  /** Needed by the page itself: kept for use without a network from the first visit on. Others are kept once used. */
  readonly page: boolean;
}

export interface Release {
  readonly format: 1;
  /** Changes with every byte of every file. */
  readonly version: string;
  readonly title: string | null;
  /** Network of the bundle; null: its own default. */
  readonly variant?: string | null;
  /** Folder of the bundle, with the last slash. */
  readonly bundle: string;
  readonly database: string;
  readonly manifest: string | null;
  readonly files: Readonly<Record<string, ReleaseFile>>;
}

/** What page and service worker say to each other. */
export type ToWorker = {readonly kind: 'update'};
export type FromWorker = {readonly kind: 'updated'; readonly version: string};

/** A release that was read, or an error that says what is wrong with it. */
export function parseRelease(value: unknown): Release {
  const release = value as Release;
  if (release === null || typeof release !== 'object' || release.format !== 1 || typeof release.version !== 'string' ||
      typeof release.bundle !== 'string' || typeof release.database !== 'string' ||
      release.files === null || typeof release.files !== 'object') {
    throw new Error('app.json is not of this page: format 1 is needed');
  }
  return release;
}
