/// <reference lib="webworker" />
/**
 * The service worker: keeps a whole release, and changes to the next one only when all of that is here.
 *
 * A release has a cache of its own, named by its version. A file is put in only if its SHA-256 is that of `app.json`, so
 * a cache never has files of two releases. The name of the release in use is kept in one more cache. A page goes on
 * with the release that it was opened with.
 */

import {sha256} from '../../src/files/sha256.js';
import {parseRelease, type FromWorker, type Release, type ToWorker} from './release.js';

declare const self: ServiceWorkerGlobalScope;

const scope = self.registration.scope;
const state = `delf-edge-visit ${scope}`;
const nameOf = (version: string) => `${state} ${version}`;
const urlOf = (path: string) => new URL(path, scope).href;
// Of index.html, put in by build.js: a worker has the policy of its own file, and no photo may leave it either.
declare const POLICY: string;
const pages = new Map<string, string>(); // client -> version that it was opened with
let updating: Promise<boolean> | null = null;

async function current(): Promise<Release | null> {
  const kept = await (await caches.open(state)).match(urlOf('app.json'));
  return kept === undefined ? null : parseRelease(await kept.json());
}

async function fetched(): Promise<Release> {
  const answer = await fetch(urlOf('app.json'), {cache: 'no-store'});
  if (!answer.ok) throw new Error(`app.json: status ${answer.status}`);
  return parseRelease(await answer.json());
}

/** A file of a release, from the network; kept in the release's cache. Rejects where the bytes are others. */
async function take(release: Release, path: string): Promise<Response> {
  const answer = await fetch(urlOf(path), {cache: 'no-cache'});
  if (!answer.ok) throw new Error(`${path}: status ${answer.status}`);
  const data = await answer.arrayBuffer();
  const found = await sha256(new Uint8Array(data));
  if (found !== release.files[path].sha256) throw new Error(`${path}: SHA-256 ${found} is not that of app.json`);
  const headers = new Headers({
    'content-type': answer.headers.get('content-type') ?? 'application/octet-stream',
    'content-length': String(data.byteLength),
    // What a server of plain files does not send: with these the page may use threads.
    'cross-origin-opener-policy': 'same-origin',
    'cross-origin-embedder-policy': 'require-corp',
    'cross-origin-resource-policy': 'same-origin',
    'content-security-policy': POLICY,
    'x-content-type-options': 'nosniff',
  });
  const kept = new Response(data, {headers});
  await (await caches.open(nameOf(release.version))).put(urlOf(path), kept.clone());
  return kept;
}

/** The files that a new release has to have before it is used: the page's own, and those the old one had in use. */
async function needed(next: Release, old: Release | null): Promise<string[]> {
  const paths = new Set(Object.keys(next.files).filter(path => next.files[path].page));
  if (old !== null) {
    for (const request of await (await caches.open(nameOf(old.version))).keys()) {
      const path = request.url.slice(scope.length);
      if (path in next.files) paths.add(path);
      if (path === old.database) [next.database, next.manifest].forEach(name => name !== null && paths.add(name));
    }
  }
  return [...paths];
}

/** Gets the newest release; true where it is another one than before. What is in use stays until all is here. */
async function update(): Promise<boolean> {
  const [next, old] = await Promise.all([fetched(), current()]);
  if (old?.version === next.version) return false;
  const cache = await caches.open(nameOf(next.version));
  const before = old === null ? null : await caches.open(nameOf(old.version));
  for (const path of await needed(next, old)) {
    if ((await cache.match(urlOf(path))) !== undefined) continue;
    const same = old?.files[path]?.sha256 === next.files[path].sha256 ? await before?.match(urlOf(path)) : undefined;
    if (same === undefined) await take(next, path);
    else await cache.put(urlOf(path), same);
  }
  await (await caches.open(state)).put(urlOf('app.json'), Response.json(next));
  const keep = new Set([state, nameOf(next.version), old === null ? '' : nameOf(old.version)]);
  for (const name of await caches.keys()) {
    if (name.startsWith(`${state} `) && !keep.has(name)) await caches.delete(name);
  }
  return true;
}

function updateOnce(): Promise<boolean> {
  updating ??= update().finally(() => (updating = null));
  return updating;
}

async function answer(event: FetchEvent): Promise<Response> {
  const url = new URL(event.request.url);
  const navigation = event.request.mode === 'navigate';
  const newest = await current();
  let release = newest;
  const opened = pages.get(event.clientId);
  // A worker goes on with the release of the page that starts it.
  if (event.request.destination === 'worker' && newest !== null) {
    pages.set(event.resultingClientId, opened ?? newest.version);
  }
  if (!navigation && opened !== undefined && newest !== null && opened !== newest.version) {
    const kept = await (await caches.open(nameOf(opened))).match(urlOf(url.href.slice(scope.length).split(/[?#]/)[0]));
    if (kept !== undefined) return kept;
  }
  if (navigation && newest !== null) pages.set(event.resultingClientId || event.clientId, newest.version);
  const path = navigation ? 'index.html' : url.href.slice(scope.length).split(/[?#]/)[0];
  if (path === 'app.json') {
    // The page asks what belongs together: that is the release in use, not the newest one of the server.
    return release === null ? fetch(event.request) : Response.json(release);
  }
  if (release === null || !(path in release.files)) return fetch(event.request);
  const kept = await (await caches.open(nameOf(release.version))).match(urlOf(path));
  if (kept !== undefined) return kept;
  try {
    return await take(release, path);
  } catch (error) {
    // The server has another release by now, or there is no network and the browser threw the file away.
    release = (await updateOnce().catch(() => false)) ? await current() : null;
    if (release !== null && path in release.files) return await take(release, path);
    return new Response(String(error), {status: 503, headers: {'content-type': 'text/plain'}});
  }
}

self.addEventListener('install', event => {
  event.waitUntil(updateOnce().then(() => self.skipWaiting()));
});

self.addEventListener('activate', event => {
  event.waitUntil(self.clients.claim());
});

self.addEventListener('fetch', event => {
  if (event.request.method === 'GET' && event.request.url.startsWith(scope)) event.respondWith(answer(event));
});

self.addEventListener('message', event => {
  if ((event.data as ToWorker).kind !== 'update') return;
  event.waitUntil(updateOnce().then(async changed => {
    const release = await current();
    if (!changed || release === null) return;
    const told: FromWorker = {kind: 'updated', version: release.version};
    for (const client of await self.clients.matchAll({type: 'window'})) client.postMessage(told);
  }, () => undefined)); // no network: what is here goes on
});
