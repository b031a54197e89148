/** The service worker of this page: kept up to date, and asked for a newer release now and then. */

import type {FromWorker, ToWorker} from './release.js';

const PATIENCE = 10_000; // milliseconds that the page waits for it on a first visit
const HOUR = 3_600_000;

/**
 * Starts the service worker; resolves when it keeps what the page fetches, or at once where there is none: in a page
 * without HTTPS, and where storage is switched off. The page then works, but only with a network.
 */
export async function keepForLater(onUpdate: () => void): Promise<boolean> {
  const workers = navigator.serviceWorker;
  if (workers === undefined) return false;
  try {
    workers.addEventListener('message', event => {
      if ((event.data as FromWorker).kind === 'updated') onUpdate();
    });
    const registration = await workers.register('sw.js', {scope: './'});
    const ask = () => {
      const message: ToWorker = {kind: 'update'};
      registration.active?.postMessage(message);
    };
    addEventListener('online', ask);
    document.addEventListener('visibilitychange', () => !document.hidden && ask());
    setInterval(ask, HOUR);
    if (workers.controller === null) {
      const ready = new Promise<void>(resolve => workers.addEventListener('controllerchange', () => resolve(), {once: true}));
      await Promise.race([ready, new Promise(resolve => setTimeout(resolve, PATIENCE))]);
    } else {
      ask();
    }
    // Asks the browser not to throw the files away when space is short; it may say no.
    void navigator.storage?.persist?.().catch(() => false);
    return workers.controller !== null;
  } catch {
    return false;
  }
}
