export * from './errors.js';
export type * from './protocol.js';
export type * from './types.js';
