/**
 * What a page and the worker say to each other. `openInWorker` speaks it; a page needs it only to talk to the worker
 * by itself. Every request has a number, and gets one reply with the same number. Progress comes in between.
 */

import type {
  Answer,
  FrameResult,
  IdentifyOptions,
  LandmarkInfo,
  OpenOptions,
  Photo,
  Progress,
  RecognizerInfo,
  SessionOptions,
} from './types.js';

/** Calls of the worker: what each is given and what it gives. `open` comes first, once. */
export interface Calls {
  open: {given: Omit<OpenOptions, 'onProgress'>; gives: RecognizerInfo};
  identify: {given: {photo: Photo; options: IdentifyOptions}; gives: Answer};
  startSession: {given: {session: number; options: SessionOptions}; gives: null};
  /** `now` in seconds of the page's clock, which the worker's may not share. */
  look: {given: {session: number; frame: Photo; now: number}; gives: FrameResult};
  tick: {given: {session: number; now: number}; gives: FrameResult};
  resetSession: {given: {session: number}; gives: null};
  landmarks: {given: {languages: readonly string[]}; gives: readonly LandmarkInfo[]};
  landmark: {given: {key: string; languages: readonly string[]}; gives: LandmarkInfo | null};
  media: {given: {slug: string; name: string}; gives: Blob | null};
  thumbnail: {given: {imageId: number}; gives: Blob | null};
  close: {given: null; gives: null};
}

export type Call = keyof Calls;

/** From the page. */
export type Request = {[C in Call]: {readonly id: number; readonly call: C; readonly given: Calls[C]['given']}}[Call];

/** From the worker. */
export type Reply =
  | {readonly id: number; readonly gives: Calls[Call]['gives']}
  | {readonly id: number; readonly error: {readonly name: string; readonly message: string}}
  | {readonly progress: Progress};
