// A worker thread behind comlink: what a page's worker script would be.
import { parentPort } from 'node:worker_threads';
import { expose } from 'mooncake-ts/workers';

expose(parentPort as unknown as Parameters<typeof expose>[0]);
