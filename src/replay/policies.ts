/** The policies a replay knows: those of src/eviction, which a store can use too, and the offline optimum. */
import type { PolicyFactory } from '../eviction/policy.js';
import { POLICIES } from '../eviction/registry.js';
import { type OfflineOptions, opt } from './opt.js';

export const REPLAY_POLICIES = { ...POLICIES, opt } satisfies Record<string, PolicyFactory<OfflineOptions>>;

export type PolicyName = keyof typeof REPLAY_POLICIES;

export const policyNames = Object.keys(REPLAY_POLICIES) as PolicyName[];
