/**
 * A cluster's instance that is a reference engine in this process, with the connectors that any engine would attach:
 * hand-over from prefill to decode first, then the store that all instances share.
 */
import { decode, Model, ReferenceEngine } from 'mooncake-ts/reference-engine';
import type { HandoverMode } from '../connector/decode.js';
import { MooncakeConnector } from '../connector/mooncake.js';
import { MultiConnector } from '../connector/multi.js';
import { MooncakeStoreConnector } from '../connector/store.js';
import type { HashOptions } from '../core/hash.js';
import type { ObjectStore } from '../store/api.js';
import type { Transfer } from '../transfer/transfer.js';
import type { Instance, InstanceRole } from './instance.js';

export interface ReferenceOptions {
  name: string;
  role: InstanceRole;
  /** Of the weights. */
  seed: number;
  /** Blocks of KV cache. */
  blocks: number;
  hash: HashOptions;
  /** How it wants blocks from a prefill instance. */
  handover: HandoverMode;
}

/** Instances of a process share their weights. */
const models = new Map<number, Model>();

export function modelOf(seed: number): Model {
  let model = models.get(seed);
  if (!model) {
    model = new Model({}, seed);
    models.set(seed, model);
  }
  return model;
}

export function startReference(options: ReferenceOptions, transfer: Transfer, store: ObjectStore): Instance {
  const { name, role, seed, blocks, hash, handover: mode } = options;
  const engine = new ReferenceEngine({
    model: modelOf(seed),
    blocks,
    blockSize: hash.blockSize,
    hash,
    connector: new MultiConnector([new MooncakeConnector({ transfer, mode }), new MooncakeStoreConnector({ store })]),
  });
  return {
    name,
    role,
    reached: { engineId: engine.info.engineId, address: transfer.address },
    // It ends with this process.
    gone: new Promise(() => {}),
    async generate({ tokens, maxTokens, kvTransferParams, id }, { signal, onToken }) {
      const generation = engine.generate(tokens, { requestId: id, maxTokens, kvTransferParams, signal });
      if (onToken) for await (const token of generation) onToken(token, decode([token]));
      const { tokens: answer, text, finishReason, cached, ttftMs, kvTransferParams: params } = await generation.result;
      const handed = kvTransferParams?.do_remote_prefill === true;
      return {
        tokens: [...answer],
        text,
        finishReason,
        ttftMs,
        kvTransferParams: params,
        cached: {
          local: cached.local,
          store: handed ? 0 : cached.external,
          prefill: handed ? cached.external : 0,
        },
      };
    },
    stats: async () => engine.stats().connector,
    close: () => engine.close(),
  };
}
