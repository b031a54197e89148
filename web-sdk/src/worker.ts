/** The worker: a recogniser behind the messages of `protocol.ts`. */

import {ClosedError} from './errors.js';
import type {Reply, Request} from './protocol.js';
import {open} from './recognizer.js';
import type {Recognizer, Session} from './types.js';

const post = (reply: Reply) => (globalThis as unknown as Worker).postMessage(reply);
const sessions = new Map<number, Session>();
let opened: Recognizer | null = null;

async function handle({call, given}: Request): Promise<Extract<Reply, {gives: unknown}>['gives']> {
  if (call === 'open') {
    opened = await open({...given, onProgress: progress => post({progress})});
    return opened.info;
  }
  if (opened === null) throw new ClosedError('no recogniser is open; send "open" first');
  switch (call) {
    case 'identify': return opened.identify(given.photo, given.options);
    case 'startSession':
      sessions.set(given.session, opened.session(given.options));
      return null;
    case 'look': return sessions.get(given.session)!.look(given.frame, given.now);
    case 'tick': return sessions.get(given.session)!.tick(given.now);
    case 'resetSession':
      sessions.get(given.session)!.reset();
      return null;
    case 'landmarks': return opened.landmarks(given.languages);
    case 'landmark': return opened.landmark(given.key, given.languages);
    case 'media': return opened.media(given.slug, given.name);
    case 'thumbnail': return opened.thumbnail(given.imageId);
    case 'close':
      opened.close();
      return null;
  }
}

globalThis.addEventListener('message', event => {
  const request = (event as MessageEvent<Request>).data;
  handle(request).then(
    gives => post({id: request.id, gives}),
    (e: unknown) => {
      const error = e instanceof Error ? {name: e.name, message: e.message} : {name: 'Error', message: String(e)};
      post({id: request.id, error});
    },
  );
});
