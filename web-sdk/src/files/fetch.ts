/** Bytes of a file, fetched or given; told how far it is. */

import {FetchError} from '../errors.js';
import type {FileSource, Progress} from '../types.js';

/**
 * The bytes of a file.
 *
 * @throws FetchError it cannot be had: no network and not in the cache, or a status that is not 2xx.
 */
export async function readFile(
  source: FileSource,
  name: string,
  onProgress: (progress: Progress) => void = () => {},
): Promise<Uint8Array> {
  if (source instanceof Uint8Array) return source;
  if (source instanceof ArrayBuffer) return new Uint8Array(source);
  if (source instanceof Blob) return new Uint8Array(await source.arrayBuffer());
  let answer: Response;
  try {
    answer = await fetch(source);
  } catch (e) {
    throw new FetchError(`${name}: cannot be fetched (${messageOf(e)}); check the network, or visit once while there is one`);
  }
  if (!answer.ok) throw new FetchError(`${name}: the server answers ${answer.status} ${answer.statusText}; check the address`);
  try {
    return await body(answer, name, onProgress);
  } catch (e) {
    throw new FetchError(`${name}: the connection was lost (${messageOf(e)}); try again`);
  }
}

/** The text of whatever was thrown. */
export function messageOf(e: unknown): string {
  return e instanceof Error ? e.message : String(e);
}

async function body(answer: Response, name: string, onProgress: (progress: Progress) => void): Promise<Uint8Array> {
  // With a content encoding the length says nothing of the bytes that come out.
  const total = answer.headers.has('content-encoding') ? 0 : Number(answer.headers.get('content-length') ?? 0);
  if (answer.body === null) return new Uint8Array(await answer.arrayBuffer());
  const parts: Uint8Array[] = [];
  let done = 0;
  for (const reader = answer.body.getReader(); ; ) {
    const {done: ended, value} = await reader.read();
    if (ended) break;
    parts.push(value);
    done += value.length;
    onProgress({file: name, done, total});
  }
  return join(parts);
}

/** Arrays one after the other. */
export function join(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
