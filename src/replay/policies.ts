/** The policies a replay knows: those of src/eviction, the one that the store has, and the offline optimum. */
import type { PolicyFactory } from '../eviction/policy.js';
import { POLICIES } from '../eviction/registry.js';
import { type StorePolicyOptions, store } from '../eviction/store.js';
import { type OfflineOptions, opt } from './opt.js';

export const REPLAY_POLICIES = { ...POLICIES, store, opt } satisfies Record<
  string,
  PolicyFactory<OfflineOptions & StorePolicyOptions>
>;

export type PolicyName = keyof typeof REPLAY_POLICIES;

export const policyNames = Object.keys(REPLAY_POLICIES) as PolicyName[];
