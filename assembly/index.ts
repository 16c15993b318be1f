// Everything the core exports; each stem stands on its own.
export { constantsEnd, ensure, heapBase } from './memory';
