/** The eviction policies by name, in the order in which they are listed to people. */
import { fifo } from './fifo.js';
import { lfu } from './lfu.js';
import { lru } from './lru.js';
import type { PolicyFactory } from './policy.js';
import { s3fifo } from './s3fifo.js';

export const POLICIES = { lru, fifo, s3fifo, lfu } satisfies Record<string, PolicyFactory>;
