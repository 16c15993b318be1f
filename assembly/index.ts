// Everything the core exports; each stem stands on its own.
export * from './alloc';
export * from './checksum';
export * from './layout';
export * from './hash';
export { constantsEnd, ensure, heapBase } from './memory';
