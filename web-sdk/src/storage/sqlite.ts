/** SQLite's own WebAssembly, from a folder of the page's origin; loaded once. */

import sqlite3InitModule, {type Sqlite3Static} from '@sqlite.org/sqlite-wasm';

import {EngineError} from '../errors.js';
import {messageOf, readFile} from '../files/fetch.js';

type Init = (options: {wasmBinary?: Uint8Array; print: (text: string) => void; printErr: (text: string) => void}) => Promise<Sqlite3Static>;

let loading: Promise<Sqlite3Static> | null = null;

/**
 * @param folder URL of the folder of `sqlite3.wasm`, with the last slash; null where the module finds it by itself (Node).
 * @throws EngineError it cannot be loaded; FetchError: it cannot be fetched.
 */
export async function loadSqlite(folder: string | null): Promise<Sqlite3Static> {
  loading ??= (async () => {
    const wasmBinary = folder === null ? undefined : await readFile(`${folder}sqlite3.wasm`, 'sqlite3.wasm');
    const silent = () => {};
    return (sqlite3InitModule as unknown as Init)({...(wasmBinary && {wasmBinary}), print: silent, printErr: silent});
  })();
  try {
    return await loading;
  } catch (e) {
    loading = null;
    if (e instanceof Error && e.name === 'FetchError') throw e;
    throw new EngineError(`SQLite cannot be loaded: ${messageOf(e)}; check the folder "wasm" and the page's policy`);
  }
}
