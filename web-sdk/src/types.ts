/**
 * The public types: what goes into a recogniser and what comes out. A page needs nothing else than this file,
 * `open` or `openInWorker`, and `errors.ts`.
 */

/** A file: where it can be fetched, or its bytes. */
export type FileSource = string | URL | Uint8Array | ArrayBuffer | Blob;

/** A bundle: the URL of its folder (with the last slash), or its files by name ("manifest.json", "codebook.npz", ...). */
export type BundleSource = string | URL | ReadonlyMap<string, Uint8Array>;

/** Pixels of a photo, upright: `data` holds `3 * width * height` bytes, RGB, row by row from the top left. */
export interface Pixels {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

/**
 * A photo. A `Blob` holds the bytes of an image file (JPEG, PNG, WebP, BMP; AVIF and HEIC where the browser reads them)
 * and is turned as its EXIF block says. The others are taken as they stand. An `ImageBitmap` or a `VideoFrame` that is
 * sent to a worker is moved there, and closed when it was read.
 */
export type Photo = Blob | ImageBitmap | ImageData | VideoFrame | Pixels;

/** How a recogniser is opened. */
export interface OpenOptions {
  readonly bundle: BundleSource;
  /** A pack, or a sealed database, of one file. */
  readonly database: FileSource;
  /**
   * The pack's manifest. Left out: of a URL that ends with `.pack` the file `NAME.pack.json` beside it, which must be
   * there; of anything else there is none. `null`: none is wanted, and only the checksums of rows are compared.
   */
  readonly manifest?: FileSource | null;
  /** URL of the folder that holds the WebAssembly files (`dist/wasm/`); default: `wasm/` beside the module. */
  readonly wasm?: string | URL;
  /** Preset of the bundle, such as "fast"; default: the bundle's own. */
  readonly preset?: string;
  /** Variant of the local network, such as "int8"; default: the bundle's own. */
  readonly variant?: string;
  /**
   * "wasm": the processor. "webgpu": the graphics chip; an error where there is none. "auto" (the default): the
   * processor, which gives the numbers of the Python SDK.
   */
  readonly accelerator?: 'auto' | 'wasm' | 'webgpu';
  /** Whether threads may be used where the page is cross-origin isolated; default: true. */
  readonly threads?: boolean;
  /** How large a photo may be. */
  readonly limits?: Partial<ImageLimits>;
  /** Told what is being loaded. */
  readonly onProgress?: (progress: Progress) => void;
}

/** Something that is being loaded: `done` of `total` bytes; `total` is 0 where it is not known. */
export interface Progress {
  readonly file: string;
  readonly done: number;
  readonly total: number;
}

/** Caps that are checked on a photo's header, before anything is decoded. The defaults are those of the Python SDK. */
export interface ImageLimits {
  readonly maxPixels: number;
  readonly maxBytes: number;
  /** A JPEG is brought to 1/2, 1/4 or 1/8 of its size while its longer side stays at least so many pixels. */
  readonly decodeMaxSide: number;
}

/** How a query is answered; names and defaults are those of `IdentifyOptions` in Python. */
export interface IdentifyOptions {
  /** Candidates checked at most; default: 20. */
  readonly verify?: number;
  /** Stop checking once the best probability is this high; default: 0.9. */
  readonly certain?: number;
  /** Fewer matched points prove nothing; default: 6. */
  readonly minInliers?: number;
  /** Landmarks that are not candidates. */
  readonly without?: readonly string[];
  /** Where a photo is unknown, try it turned by 90, 270 and 180 degrees; default: true. Frames are never turned. */
  readonly turns?: boolean;
  /** Landmarks in `results` at most; default: 5. */
  readonly top?: number;
  /** No further candidate is checked, and no turn begun, after so many milliseconds; default: no deadline. */
  readonly deadlineMs?: number;
  /** Languages of `info`, tags of BCP 47, the most wanted first. */
  readonly languages?: readonly string[];
  /** Whether the answer has the matched points (`proof`); default: true. */
  readonly proof?: boolean;
}

/** One stored image in the results: the best of its landmark. */
export interface Match {
  readonly imageId: number;
  /** Name of the image in the database. */
  readonly name: string;
  readonly landmark: string;
  readonly score: number;
  /** Calibrated, 0..1. */
  readonly probability: number;
  /** Matched points that passed RANSAC; 0 where the image was not checked. */
  readonly nInliers: number;
  /** Cosine of the global descriptors. */
  readonly similarity: number;
}

/** The points that prove an answer. All coordinates are pixels; (0, 0) is the centre of the top left pixel. */
export interface Proof {
  readonly imageId: number;
  /** Size that `query` refers to: the upright photo, as it was decoded (a large JPEG is decoded at reduced size). */
  readonly querySize: readonly [width: number, height: number];
  /** Size that `stored` refers to. */
  readonly storedSize: readonly [width: number, height: number];
  /** x0, y0, x1, y1, ... of the matched points in the photo. */
  readonly query: Float32Array;
  /** The same points in the stored image, in the same order. */
  readonly stored: Float32Array;
  /** Affine map from photo to stored image, row by row (2 x 3). */
  readonly transform: Float64Array;
  /** Degrees clockwise by which the photo was turned before it was known: 0, 90, 180 or 270. `query` is turned too. */
  readonly turned: number;
}

/** What is known of a landmark, in one language. */
export interface LandmarkInfo {
  readonly slug: string;
  /** Its name in the database. */
  readonly name: string;
  /** Its name in `language`; where it has no text, `name`. */
  readonly title: string;
  /** Of title and summary, a tag of BCP 47; null where it has no text. */
  readonly language: string | null;
  /** All languages that it has texts in. */
  readonly languages: readonly string[];
  readonly summary: string | null;
  /** A longer text. */
  readonly body: string | null;
  readonly link: string | null;
  /** Name of the sound that belongs to the text. */
  readonly audio: string | null;
  readonly kind: string | null;
  readonly collection: string | null;
  readonly latitude: number | null;
  readonly longitude: number | null;
  readonly externalIds: Readonly<Record<string, string>>;
  /** Its pictures and sounds; `Recognizer.media` has their bytes. */
  readonly media: readonly MediaInfo[];
}

/** A picture or sound of a landmark. */
export interface MediaInfo {
  readonly name: string;
  /** Media type, such as "image/jpeg". */
  readonly type: string;
  readonly credit: string | null;
}

/** What `identify` gives. */
export interface Answer {
  /** The landmark's name, or null for "unknown". */
  readonly landmark: string | null;
  /** Name of the stored image that proves it, or null. */
  readonly image: string | null;
  /** Calibrated probability of the best image, 0..1, also where the answer is unknown. */
  readonly probability: number;
  /** Matched points of the best image. */
  readonly nInliers: number;
  /** One sentence why this is the answer, in English, as the Python SDK says it. */
  readonly reason: string;
  /** The most probable landmark first; one image of each. */
  readonly results: readonly Match[];
  /** The matched points of the best image; null where none was checked or `proof` is false. */
  readonly proof: Proof | null;
  /** What is known of the landmark; null where the answer is unknown. */
  readonly info: LandmarkInfo | null;
  /**
   * Milliseconds by stage: decode, pyramid, network, selection, projection, global, candidates, verify, turns, total.
   */
  readonly milliseconds: Readonly<Record<string, number>>;
}

/** Facts about what is open. */
export interface RecognizerInfo {
  readonly bundleId: string;
  readonly bundleName: string;
  readonly databaseUuid: string;
  readonly revision: number;
  /** Name and version of a pack; null without a manifest. */
  readonly pack: {readonly name: string; readonly version: number} | null;
  readonly nImages: number;
  readonly nLandmarks: number;
  readonly nFeatures: number;
  /** All languages of its texts. */
  readonly languages: readonly string[];
  /** Rows that are damaged and left out, each with what is wrong. */
  readonly damaged: readonly string[];
  readonly preset: string;
  readonly accelerator: 'wasm' | 'webgpu';
  /** Threads of the network; 1 where the page is not cross-origin isolated. */
  readonly threads: number;
  /** Milliseconds by step of opening: manifest, bundle, database, index, runtime, total. */
  readonly milliseconds: Readonly<Record<string, number>>;
}

/** A recogniser that is open; the same whether it runs here or in a worker. */
export interface Recognizer {
  readonly info: RecognizerInfo;
  /** What a photo shows. Calls are answered one after the other. Rejects with `ImageError` for a bad photo. */
  identify(photo: Photo, options?: IdentifyOptions): Promise<Answer>;
  /** Frames of one camera; several sessions may be open. */
  session(options?: SessionOptions): Session;
  /** All landmarks by name, in the best of the wanted languages. */
  landmarks(languages?: readonly string[]): Promise<readonly LandmarkInfo[]>;
  /** One landmark by slug or name; null where there is none. */
  landmark(slugOrName: string, languages?: readonly string[]): Promise<LandmarkInfo | null>;
  /** A picture or sound, compared with its SHA-256; null where there is none or its bytes are not in the file. */
  media(slug: string, name: string): Promise<Blob | null>;
  /** The small JPEG of a stored image; null where none was kept. */
  thumbnail(imageId: number): Promise<Blob | null>;
  /** Frees all memory; calls that wait are rejected. Closing twice is fine. */
  close(): void;
}

/** Which frames are skipped; as `GateOptions` in Python. */
export interface GateOptions {
  readonly minBrightness: number;
  readonly maxBrightShare: number;
  readonly minContrast: number;
  readonly minSharpness: number;
  readonly minChange: number;
  /** Seconds after which an unchanged scene is looked at again. */
  readonly refresh: number;
}

/** How many frames it takes; as `VoteOptions` in Python. */
export interface VoteOptions {
  readonly appear: number;
  readonly step: number;
  readonly miss: number;
  readonly cap: number;
  readonly frames: number;
  readonly hold: number;
  readonly cooldown: number;
  readonly several: boolean;
}

/** How frames are watched. */
export interface SessionOptions {
  readonly gate?: Partial<GateOptions>;
  readonly vote?: Partial<VoteOptions>;
  /** How a frame is asked for; `turns` is ignored. `deadlineMs` defaults to 1000. */
  readonly identify?: IdentifyOptions;
}

/** What became of a frame before it was asked for. "dropped": a newer one came while another was being looked at. */
export type Verdict = 'look' | 'black' | 'blown out' | 'flat' | 'blurred' | 'unchanged' | 'dropped';

/** Something changed: `landmark` is the new one, of "left" the one that left; `previous` is set for "changed". */
export interface SessionEvent {
  readonly kind: 'appeared' | 'changed' | 'left';
  readonly landmark: string;
  readonly previous: string | null;
  /** The answer in which the landmark was last seen. */
  readonly answer: Answer | null;
}

/** What a frame led to. */
export interface FrameResult {
  readonly verdict: Verdict;
  readonly events: readonly SessionEvent[];
  /** The answer to this frame; null unless the verdict is "look". */
  readonly answer: Answer | null;
  readonly state: 'looking' | 'unknown' | 'present';
  /** Landmarks that are there. */
  readonly present: readonly string[];
}

/** Frames of one camera become steady events. */
export interface Session {
  /**
   * Gives a frame; resolves when it was answered, skipped or dropped. While one frame is being looked at, only the
   * newest of those that come is kept, so a page may call this for every frame.
   *
   * @param now seconds of a clock that never goes back; default: `performance.now() / 1000`.
   */
  look(frame: Photo, now?: number): Promise<FrameResult>;
  /** Nothing could be seen (no camera, a page in the background): only time passes. */
  tick(now?: number): Promise<FrameResult>;
  /** Forgets everything that was seen. */
  reset(): void;
}
