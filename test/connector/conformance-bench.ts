/** The bench on which scenarios of the conformance suite run: a subject's world and the engines in it. */
import type { KvConnector, KvRole } from 'mooncake-ts';
import * as assert from 'uvu/assert';
import { HarnessEngine, type HarnessOptions, type HarnessRequest, type RequestOptions, tokensOf } from './harness.js';

/**
 * shared: what one engine computed, any other finds (a store). handover: a prefill engine hands one request's blocks to the
 * decode engine that its parameters name. The others say what a world's methods can do.
 */
export type Capability = 'shared' | 'handover' | 'tensorParallel' | 'evict' | 'corrupt' | 'unchecked' | 'kill';

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
    const engine = new HarnessEngine({ ...options, role, connector: await this.world.connector() });
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
    return this.handover ? { ...options, kvTransferParams: given.params ?? undefined } : options;
  }

  /** Computes a prompt on one engine; what it gives is there for others when this resolves. */
  async compute(engine: HarnessEngine, options: RequestOptions): Promise<HarnessRequest> {
    const request = engine.add(this.give(options));
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
