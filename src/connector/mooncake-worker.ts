/**
 * The worker half of MooncakeConnector: one rank's KV memory, reached by peers through its transfer. What the scheduler half
 * decided goes to the hand-overs that this rank offers (prefill.ts) and to the loads that it runs (decode.ts); both
 * work between steps, and a step only collects what has ended. No load is waited for by layer: a request runs when all of
 * its KV is there. What a step has written of a layer goes to decodes that wait for it (prefill-layers.ts).
 */
import { errors } from '../core/errors.js';
import type { KvLayout } from '../core/layout.js';
import type { RequestContext, Transfer } from '../transfer/transfer.js';
import type { ConnectorMetadata, ConnectorStats, EngineInfo, KvCaches, WorkerConnector } from './api.js';
import { Bootstrap } from './bootstrap.js';
import { RankRoster } from './bootstrap-roster.js';
import { type DecodeOptions, DecodeRank } from './decode.js';
import { type HandoverMetadata, hashOptions, newGeneration, type RankInfo, unknown } from './handover.js';
import { type Message, type Release, readDone, readRelease, readTake } from './handover-wire.js';
import { PrefillRank } from './prefill.js';
import { PrefillLayers } from './prefill-layers.js';
import { PrefillPush } from './prefill-push.js';

export interface WorkerOptions extends DecodeOptions {
  readonly abortTimeoutMs: number;
}

/** What a worker has once it knows its memory. */
interface Registered {
  readonly info: RankInfo;
  readonly decode: DecodeRank;
  readonly push: PrefillPush;
  /** Ends being reached by peers. */
  readonly leave: () => void;
}

export class MooncakeWorker implements WorkerConnector {
  readonly #engine: EngineInfo;
  readonly #rank: number;
  readonly #transfer: Transfer;
  readonly #options: WorkerOptions;
  readonly #prefill: PrefillRank;
  readonly #layers = new PrefillLayers();
  readonly #roster = new RankRoster();
  #registered: Registered | undefined;
  #metadata: HandoverMetadata | undefined;
  #failedBlocks: number[] = [];
  #ended: Promise<void> | undefined;

  constructor(engine: EngineInfo, rank: number, transfer: Transfer, options: WorkerOptions) {
    this.#engine = engine;
    this.#rank = rank;
    this.#transfer = transfer;
    this.#options = options;
    this.#prefill = new PrefillRank(options.abortTimeoutMs);
  }

  registerKvCaches(caches: KvCaches): void {
    if (this.#registered !== undefined) throw errors.invalidArgument('caches', caches, 'registered once');
    const { engineId, model, role, hash, tensorParallelSize: size = 1 } = this.#engine;
    const generation = newGeneration();
    // Peers write into this memory only where it asks them to.
    const access = this.#options.mode !== 'pull' && role !== 'producer' ? 'read-write' : 'read';
    const segments: { id: number; name: string }[] = [];
    try {
      for (const [index, memory] of caches.memories.entries()) {
        const name = `kv ${engineId} ${this.#rank} ${generation} ${index}`;
        segments.push({ id: this.#transfer.register(memory, { name, access }), name });
      }
      const layout = caches.layout(segments.map(({ id }) => id));
      const info: RankInfo = {
        engine: engineId,
        rank: this.#rank,
        size,
        generation,
        address: this.#transfer.address,
        model,
        hash: hashOptions(hash),
        segments,
        // Plain data without undefined values, as it crosses to other processes.
        layout: JSON.parse(JSON.stringify(layout)),
      };
      this.#join(info, layout);
    } catch (error) {
      for (const { id } of segments) void this.#transfer.unregister(id);
      throw error;
    }
  }

  /** From here on peers reach this rank. */
  #join(info: RankInfo, layout: KvLayout): void {
    if (info.size === 1) this.#roster.set([info]);
    const self = { info, layout, roster: (signal: AbortSignal) => this.#roster.get(signal) };
    const push = new PrefillPush(self, this.#prefill, this.#layers, this.#options);
    const answer = (op: string, message: Message, context: RequestContext) => this.#answer(op, message, context);
    this.#registered = {
      info,
      decode: new DecodeRank(self, this.#transfer, this.#options),
      push,
      leave: Bootstrap.of(this.#transfer).add({ info, roster: self.roster, answer }),
    };
  }

  getHandshakeMetadata(): RankInfo {
    return this.#ready().info;
  }

  bindConnectorMetadata(metadata: ConnectorMetadata): void {
    this.#metadata = metadata as HandoverMetadata;
  }

  clearConnectorMetadata(): void {
    this.#metadata = undefined;
  }

  async handlePreemptions(requestIds: readonly string[]): Promise<void> {
    await Promise.all([this.#ready().decode.drop(requestIds), this.#layers.preempted(requestIds)]);
  }

  startLoadKv(): void {
    const metadata = this.#metadata;
    if (metadata === undefined) return;
    this.#metadata = undefined;
    const { decode } = this.#ready();
    if (metadata.roster !== undefined) this.#roster.set(metadata.roster);
    for (const offer of metadata.offers) this.#prefill.offer(offer, this.#layers.end(offer.transfer));
    for (const one of metadata.withdrawn) this.#prefill.withdraw(one, this.#layers.end(one.transfer));
    this.#layers.begin(metadata.steps);
    for (const load of metadata.loads) decode.start(load);
    for (const request of metadata.cancelled) decode.cancel(request);
    for (const { request, source } of metadata.unwanted)
      decode.letGo(request, source, 'the decode needs nothing of it');
  }

  async waitForLayerLoad(): Promise<void> {
    await this.#layers.fenced();
  }

  saveKvLayer(layer: number): void {
    this.#layers.written(layer);
  }

  /** Waits for nobody: what the engine may not change while it is read, it is told where it would. */
  async waitForSave(): Promise<void> {
    this.#layers.stepped();
  }

  getFinished(): { sending: string[]; receiving: string[] } {
    const { finished, failed } = this.#ready().decode.report();
    this.#failedBlocks = this.#failedBlocks.concat(failed);
    return { sending: this.#prefill.finished(), receiving: finished };
  }

  getBlockIdsWithLoadErrors(): number[] {
    const failed = this.#failedBlocks;
    this.#failedBlocks = [];
    return failed;
  }

  stats(): ConnectorStats {
    const decode = this.#registered?.decode;
    const failures = Object.entries(decode?.failures ?? {}).map(([code, count]) => [`loadsFailed.${code}`, count]);
    return {
      ...this.#prefill.counters,
      ...this.#layers.counters,
      handoversHeld: this.#prefill.held,
      decodesWaiting: this.#prefill.waiting,
      ...decode?.counters,
      loadsRunning: decode?.running ?? 0,
      ...Object.fromEntries(failures),
    };
  }

  shutdown(): Promise<void> {
    this.#ended ??= this.#shutdown();
    return this.#ended;
  }

  async #shutdown(): Promise<void> {
    this.#roster.close();
    if (this.#registered === undefined) return;
    const { decode, leave, info } = this.#registered;
    const closed = errors.closed('the prefill engine');
    await Promise.all([decode.close(), this.#prefill.close(), this.#layers.close(closed)]);
    leave();
    await Promise.all(info.segments.map(({ id }) => this.#transfer.unregister(id)));
  }

  #ready(): Registered {
    if (this.#registered === undefined) throw errors.invalidArgument('caches', undefined, 'registered first');
    return this.#registered;
  }

  async #answer(op: string, message: Message, context: RequestContext): Promise<unknown> {
    switch (op) {
      case 'take': {
        const { lease, offer } = await this.#prefill.take(readTake(message), context.peer, context.signal);
        return { lease, blocks: offer.blocks };
      }
      case 'push':
        return this.#ready().push.answer(message, context);
      case 'done':
        this.#prefill.done(readDone(message));
        return null;
      case 'release':
        await this.#release(readRelease(message));
        return null;
      default:
        throw errors.notSupported(`the hand-over message ${op}`, 'roster, rank, take, push, done and release are');
    }
  }

  /** Resolves when nothing is written for the decode any more, early or late. */
  async #release(release: Release): Promise<void> {
    const why = unknown('transfer', release.by.transfer, release.why);
    await Promise.all([this.#prefill.release(release), this.#layers.stop(release.by, why)]);
  }
}
