/**
 * MooncakeStoreConnector: engines share the KV of equal prefixes through a store. What one computed is saved block by
 * block under the hash of the block and all tokens before it; another that meets the same prefix loads it instead of
 * computing it. After vLLM's connector of the same name (vllm/distributed/kv_transfer/kv_connector/v1/mooncake/store,
 * vLLM 0.32), with which it can share objects (integrity: 'stock').
 */
import { boolean, integer, oneOf, options as optionsObject, string } from '../core/check.js';
import { errors, type MooncakeError } from '../core/errors.js';
import type { ReplicateConfig } from '../master/api.js';
import type { ObjectStore } from '../store/api.js';
import type { EngineInfo, KvConnector, SchedulerConnector, WorkerConnector } from './api.js';
import { type Integrity, Namespace } from './namespace.js';
import { checkNamespace } from './store-attach.js';
import type { NamespaceClaim } from './store-metadata.js';
import type { ObjectLayout } from './store-objects.js';
import { StoreScheduler } from './store-scheduler.js';
import { StoreWorker } from './store-worker.js';
import type { StoreWorkerContext } from './store-worker-context.js';

export interface StoreConnectorOptions {
  /** The store, or one for each half: called with a worker's rank, or null for the scheduler. */
  store: ObjectStore | ((rank: number | null) => ObjectStore);
  /**
   * strict: keys say all that the bytes depend on. stock: the keys of vLLM's own connector. Default strict, but refused
   * beside objects that stock wrote: then say which.
   */
  integrity?: Integrity;
  /** Put before every key, so that deployments share a store without meeting. Default none. */
  prefix?: string;
  /** The store's tenant. Default the store's. */
  tenant?: string;
  /** Load while other requests run (true, the default), or layer by layer inside the step. */
  loadAsync?: boolean;
  /** Tensor-parallel sizes of deployments whose objects are looked for too (strict mode). Default none but its own. */
  peerTensorParallelSizes?: readonly number[];
  /** How objects are put: replicas, pins, preferred segments. */
  put?: ReplicateConfig;
  /** Deadline of a lookup, in ms: what the store has not answered by then counts as absent. Default 2000. */
  lookupTimeoutMs?: number;
  /** Deadline of each call of a load or save, and of waiting for its turn, in ms. Default 10,000 and 30,000. */
  loadTimeoutMs?: number;
  saveTimeoutMs?: number;
  /** How long an answer of the store is believed while a request waits, in ms. Default 2000. */
  lookupTtlMs?: number;
  /** Told why a lookup, a load or a save failed (a MooncakeError, if nothing is broken). Engines go on without. */
  onError?: (error: unknown) => void;
  /** Requests that are loaded at once, and batches that are saved at once, per rank. Default 8 and 4. */
  maxLoads?: number;
  maxSaves?: number;
  /** Bytes of a batch, and of the segment for parts of larger objects (allocated when first needed). Default 64 MiB each. */
  batchBytes?: number;
  asideBytes?: number;
  /** Keep the hashes of what was saved until the engine asks for them (`takeSaved`), for its KV events. Default false. */
  reportSaved?: boolean;
}

const HOUR = 3_600_000;
const MIB = 1 << 20;

export class MooncakeStoreConnector implements KvConnector {
  readonly name = 'MooncakeStoreConnector';
  readonly #options: Required<Omit<StoreConnectorOptions, 'integrity' | 'tenant' | 'store'>>;
  readonly #integrity: Integrity | undefined;
  readonly #tenant: string | undefined;
  readonly #store: (rank: number | null) => ObjectStore;
  /** Checks of namespaces, by store and companion key. */
  readonly #checks = new Map<ObjectStore, Map<string, Promise<void>>>();

  constructor(options: StoreConnectorOptions) {
    const given = optionsObject('options', options);
    const { store } = given;
    if (typeof store !== 'function' && typeof (store as ObjectStore | undefined)?.openGet !== 'function') {
      throw errors.invalidArgument('store', store, 'an ObjectStore, or a function that returns one');
    }
    if (given.onError !== undefined && typeof given.onError !== 'function') {
      throw errors.invalidArgument('onError', given.onError, 'a function');
    }
    const ms = (name: string, value: number | undefined, standard: number) => integer(name, value ?? standard, 1, HOUR);
    const count = (name: string, value: number | undefined, standard: number) =>
      integer(name, value ?? standard, 1, Number.MAX_SAFE_INTEGER);
    this.#store = typeof store === 'function' ? store : () => store;
    this.#integrity =
      given.integrity === undefined ? undefined : oneOf<Integrity>('integrity', given.integrity, ['strict', 'stock']);
    this.#tenant = given.tenant === undefined ? undefined : string('tenant', given.tenant);
    const sizes = given.peerTensorParallelSizes ?? [];
    for (const [index, size] of sizes.entries()) integer(`peerTensorParallelSizes[${index}]`, size, 1, 1 << 16);
    this.#options = {
      prefix: string('prefix', given.prefix ?? ''),
      loadAsync: boolean('loadAsync', given.loadAsync ?? true),
      peerTensorParallelSizes: [...sizes],
      put: { ...optionsObject('put', given.put) },
      lookupTimeoutMs: ms('lookupTimeoutMs', given.lookupTimeoutMs, 2000),
      loadTimeoutMs: ms('loadTimeoutMs', given.loadTimeoutMs, 10_000),
      saveTimeoutMs: ms('saveTimeoutMs', given.saveTimeoutMs, 30_000),
      lookupTtlMs: ms('lookupTtlMs', given.lookupTtlMs, 2000),
      maxLoads: count('maxLoads', given.maxLoads, 8),
      maxSaves: count('maxSaves', given.maxSaves, 4),
      onError: given.onError ?? (() => {}),
      batchBytes: count('batchBytes', given.batchBytes, 64 * MIB),
      asideBytes: count('asideBytes', given.asideBytes, 64 * MIB),
      reportSaved: boolean('reportSaved', given.reportSaved ?? false),
    };
  }

  createScheduler(engine: EngineInfo): SchedulerConnector {
    const { loadAsync, lookupTimeoutMs, lookupTtlMs, onError } = this.#options;
    const store = this.#store(null);
    const attach = (claim: NamespaceClaim) => this.#attach(store, claim);
    const refuse = (claim: NamespaceClaim, error: MooncakeError) => this.#record(store, claim, Promise.reject(error));
    const options = { store, tenant: this.#tenant, loadAsync, lookupTimeoutMs, lookupTtlMs, attach, refuse, onError };
    // Says at once, by an error, when the engine's hashes are not defined.
    this.#namespace(engine, 'strict');
    return new StoreScheduler(engine, options);
  }

  createWorker(engine: EngineInfo, rank: number): WorkerConnector {
    const { put, loadTimeoutMs, saveTimeoutMs, batchBytes, asideBytes, maxLoads, maxSaves, reportSaved, onError } =
      this.#options;
    const store = this.#store(integer('rank', rank, 0, (engine.tensorParallelSize ?? 1) - 1));
    let claimed: NamespaceClaim | undefined;
    const context: StoreWorkerContext = {
      store,
      tenant: this.#tenant,
      put,
      loadTimeoutMs,
      saveTimeoutMs,
      batchBytes,
      attached: async () => claimed !== undefined && this.#attach(store, claimed),
      onError,
      stats: {
        loadedBlocks: 0,
        loadedBytes: 0,
        failedLoadBlocks: 0,
        abortedLoads: 0,
        savedBlocks: 0,
        savedBytes: 0,
        presentBlocks: 0,
        failedSaveBlocks: 0,
      },
    };
    const namespace = this.#namespace(engine, this.#integrity ?? 'strict');
    const options = {
      rank,
      namespace,
      peerSizes: this.#options.peerTensorParallelSizes,
      maxLoads,
      maxSaves,
      asideBytes,
      reportSaved,
      claim: (objects: ObjectLayout) => this.#claim(engine, objects),
      attach: (claim: NamespaceClaim) => {
        claimed = claim;
        void this.#attach(store, claim);
      },
    };
    return new StoreWorker(context, options);
  }

  /**
   * Resolves when every half made so far may use its namespace. Throws ERR_NAMESPACE, naming the field and both values,
   * where one may not: its engine then works without the store. Engines need not call this; to them, nothing is found.
   */
  async attached(): Promise<void> {
    await Promise.all([...this.#checks.values()].flatMap((checks) => [...checks.values()]));
  }

  /**
   * Removes the blocks of everybody who shares the engine's keys up to the model: for weights that have changed under their
   * name. What is being loaded meanwhile fails, and is computed. How many objects.
   */
  async forget(engine: EngineInfo): Promise<number> {
    const pattern = this.#namespace(engine, this.#integrity ?? 'strict').pattern;
    return this.#store(null).removeByRegex(pattern, { tenant: this.#tenant, force: true });
  }

  /**
   * What two engines must have alike to find each other's blocks, and what their keys begin with: compare these where
   * nothing is ever hit. `noneHash` differs where the hash algorithm or the seed does.
   */
  describe(engine: EngineInfo): { integrity: Integrity; noneHash: string; root: string } {
    const { integrity, noneHash, root } = this.#namespace(engine, this.#integrity ?? 'strict');
    return { integrity, noneHash, root };
  }

  #namespace(engine: EngineInfo, integrity: Integrity): Namespace {
    return new Namespace(engine, integrity, this.#options.prefix);
  }

  #claim(engine: EngineInfo, objects: ObjectLayout): NamespaceClaim {
    const stock = this.#namespace(engine, 'stock');
    return {
      integrity: this.#integrity ?? null,
      model: engine.model,
      companionKey: stock.companionKey(objects),
      fingerprint: stock.fingerprint(objects),
      stockPrefix: stock.keyPrefix(objects, 0),
    };
  }

  /** Whether the claim holds; one check serves all halves that make the same claim. */
  #attach(store: ObjectStore, claim: NamespaceClaim): Promise<boolean> {
    const { lookupTimeoutMs } = this.#options;
    const check =
      this.#checks.get(store)?.get(JSON.stringify(claim)) ??
      this.#record(store, claim, checkNamespace(store, claim, { tenant: this.#tenant, timeoutMs: lookupTimeoutMs }));
    return check.then(
      () => true,
      (error: MooncakeError) => {
        // A store that could not be asked is asked again, by whoever wants to know next.
        if (error.code !== 'ERR_NAMESPACE') this.#checks.get(store)?.delete(JSON.stringify(claim));
        return false;
      },
    );
  }

  #record(store: ObjectStore, claim: NamespaceClaim, check: Promise<void>): Promise<void> {
    let checks = this.#checks.get(store);
    if (checks === undefined) this.#checks.set(store, (checks = new Map()));
    checks.set(JSON.stringify(claim), check);
    // Whoever calls `attached` hears of it; a refusal that nobody asks for is no unhandled rejection.
    check.catch(() => {});
    return check;
  }
}
