export {openInWorker} from './client.js';
export * from './errors.js';
export type * from './protocol.js';
export {open} from './recognizer.js';
export type * from './types.js';
