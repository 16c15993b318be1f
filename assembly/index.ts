// Everything the core exports; each stem stands on its own.
export * from './alloc';
export * from './checksum';
export * from './hash';
export * from './layout';
export { constantsEnd, ensure, heapBase } from './memory';
export * from './objects';
export * from './prefix';
