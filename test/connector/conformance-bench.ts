/** The bench on which scenarios of the conformance suite run: a subject's world and the engines in it. */
import type { KvConnector, KvRole, KvTransferParams } from 'mooncake-ts';
import * as assert from 'uvu/assert';
import { HarnessEngine, type HarnessOptions, type HarnessRequest, type RequestOptions, tokensOf } from './harness.js';

/**
 * shared: what one engine computed, any other finds (a store). handover: a prefill engine hands one request's blocks to the
 * decode engine that its parameters name; early: the decode comes while the prefill computes. The others say what a
 * world's methods can do.
 */
export type Capability =
  | 'shared'
  | 'handover'
  | 'early'
  | 'tensorParallel'
  | 'evict'
  | 'corrupt'
  | 'unchecked'
  | 'kill';

export interface World {
  /** The connector of one more engine. */
  connector(): KvConnector | Promise<KvConnector>;
  /** Takes away everything that is shared, as eviction does. */
  evict?(): Promise<void>;
  /** Changes bytes of everything that is shared. */
  corrupt?(): Promise<void>;
  /** Kills what the engines share: the store's process, the network. */
  kill?(): Promise<void>;
  /** Brings it back, empty. */
  revive?(): Promise<void>;
  /** Objects that are shared now, where they can be counted. */
  count?(): Promise<number>;
  /** Memory that its connectors can use. Default: the process's own. */
  allocate?(bytes: number): Uint8Array;
  close(): Promise<void>;
}

export interface WorldOptions {
  /** Without verification, for the control that shows what it is for. */
  unchecked: boolean;
  /** The scenario leaves hand-overs that nobody fetches: they are to expire soon. In any other none may, however slow it is. */
  abandons: boolean;
}

export interface Subject {
  readonly name: string;
  readonly capabilities: readonly Capability[];
  world(options: WorldOptions): Promise<World>;
}

export interface Scenario {
  name: string;
  needs: readonly Capability[];
  run(bench: Bench): Promise<void>;
  /** See WorldOptions. */
  abandons?: boolean;
}

export type EngineOptions = Omit<HarnessOptions, 'connector'>;

/** A world with its engines; closes all of them. */
export class Bench {
  readonly engines: HarnessEngine[] = [];
  readonly world: World;
  readonly #subject: Subject;
  #transfers = 0;
  /** Where a request is that computes for a decode. */
  readonly #given = new Map<HarnessRequest, HarnessEngine>();

  constructor(subject: Subject, world: World) {
    this.#subject = subject;
    this.world = world;
  }

  get handover(): boolean {
    return this.has('handover');
  }

  has(capability: Capability): boolean {
    return this.#subject.capabilities.includes(capability);
  }

  async engine(options: EngineOptions = {}): Promise<HarnessEngine> {
    const role: KvRole = options.role ?? 'both';
    // Prompts of the suite are short: in chunks there is something to come early.
    const chunks = this.has('early') ? { maxTokensPerStep: 6 } : {};
    const { allocate } = this.world;
    const connector = await this.world.connector();
    const engine = new HarnessEngine({ allocate, ...chunks, ...options, role, connector });
    this.engines.push(engine);
    return engine;
  }

  /** The parameters of a request on the engine that computes for others. */
  give(options: RequestOptions): RequestOptions {
    if (!this.handover) return options;
    const transfer_id = `transfer-${++this.#transfers}`;
    return { ...options, maxTokens: 1, kvTransferParams: { do_remote_decode: true, transfer_id } };
  }

  /** The same prompt for the engine that takes over. */
  take(options: RequestOptions, given: HarnessRequest): RequestOptions {
    return this.handover ? { ...options, kvTransferParams: given.params ?? this.#announced(given) } : options;
  }

  /** What a router sends that does not wait for the prefill. */
  #announced(given: HarnessRequest): KvTransferParams | undefined {
    const engine = this.#given.get(given);
    if (engine === undefined) return undefined;
    const { address } = engine.workers[0].getHandshakeMetadata() as { address: string };
    return {
      do_remote_prefill: true,
      transfer_id: given.kvTransferParams!.transfer_id,
      remote_engine_id: engine.info.engineId,
      remote_bootstrap_addr: address,
    };
  }

  /**
   * Computes a prompt on one engine; what it gives is there for others when this resolves. Early: it is about to, or has
   * done a part of it.
   */
  async compute(engine: HarnessEngine, options: RequestOptions): Promise<HarnessRequest> {
    const request = engine.add(this.give(options));
    if (this.has('early')) {
      this.#given.set(request, engine);
      for (let left = this.#transfers % 3; left > 0; left--) await engine.step();
      return request;
    }
    await engine.until(() => request.state === 'finished' && (this.handover || engine.idle));
    return request;
  }

  /** Computes a prompt on one engine and runs it on another. */
  async pass(from: HarnessEngine, to: HarnessEngine, options: RequestOptions): Promise<HarnessRequest> {
    const given = await this.compute(from, options);
    const taken = to.add(this.take(options, given));
    await this.drain();
    return taken;
  }

  /** Lets every engine work until all are idle. */
  async drain(): Promise<void> {
    await Promise.all(this.engines.map((engine) => engine.drain()));
  }

  /** No engine read a wrong byte or lost a block. */
  expectClean(): void {
    for (const engine of this.engines) {
      assert.equal(engine.corruptions, []);
      assert.is(engine.freeBlocks, engine.blocks, `${engine.info.engineId} keeps blocks`);
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.engines.map((engine) => engine.close()));
    await this.world.close();
  }
}

export const BLOCK = 4;
export const PROMPT = tokensOf(1, 22);
/** Tokens of PROMPT that a connector can bring: whole blocks, and at least one token is left to compute. */
export const MOST = 20;

export const pause = (ms = 2) => new Promise((resolve) => setTimeout(resolve, ms));

/** What a request's tokens must be, whoever computed them. */
export async function expected(bench: Bench, options: RequestOptions, shape: EngineOptions = {}): Promise<number[]> {
  const alone = await bench.engine({ ...shape, model: 'alone', role: 'both' });
  const request = await alone.run({ ...options, kvTransferParams: undefined });
  return request.outputTokens;
}
