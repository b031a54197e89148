/** SHA-256 in hexadecimal, by the browser where it has it (a page that is no secure context has not), else by @noble/hashes. */

import {sha256 as inJavaScript} from '@noble/hashes/sha2.js';

export async function sha256(bytes: Uint8Array): Promise<string> {
  const digest =
    globalThis.crypto?.subtle === undefined
      ? inJavaScript(bytes)
      : new Uint8Array(await crypto.subtle.digest('SHA-256', bytes as Uint8Array<ArrayBuffer>));
  return hex(digest);
}

export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, b => b.toString(16).padStart(2, '0')).join('');
}
