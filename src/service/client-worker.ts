/**
 * A worker half that lives in the service, which maps the rank's memory. When the service is lost, what was being loaded has
 * failed and what was kept for it is let go: both are reported when nothing touches the memory any more.
 */
import { randomBytes } from 'node:crypto';
import type { ConnectorStats, KvCaches, WorkerConnector } from '../connector/api.js';
import { errors, MooncakeError } from '../core/errors.js';
import type { Addon } from '../native/addon.js';
import { loadAddon } from '../native/load.js';
import type { DeviceMemory } from '../transfer/engine/api.js';
import { checkDevice } from '../transfer/engine/memory.js';
import type { Call, Greeted, Link } from './client-link.js';
import type { ClientMetadata } from './client-scheduler.js';
import { decodeHandshake } from './envelope.js';
import type { FinishedAnswer, WorkAnswer } from './worker-session.js';

interface LoadUnderWay {
  readonly async: boolean;
  readonly blocks: readonly number[];
}

const SHARE_MS = 5000;
/** Of calls that wait for loads and saves: beyond the connectors' own deadlines. */
const LAYER_MS = 60_000;

export class ServiceWorker implements WorkerConnector {
  readonly #link: Link;
  #caches: KvCaches | undefined;
  #handshake: unknown = null;
  #metadata: ClientMetadata | undefined;
  /** What the engine expects to hear of. */
  readonly #loads = new Map<string, LoadUnderWay>();
  readonly #held = new Set<string>();
  #step: Promise<WorkAnswer | undefined> | undefined;
  #work: WorkAnswer = { loads: false, saves: false };
  /** What is to be reported of a lost service. */
  #sent: string[] = [];
  #received: string[] = [];
  #failed: number[] = [];
  #stats: ConnectorStats = {};

  constructor(link: Link) {
    this.#link = link;
  }

  registerKvCaches(caches: KvCaches): void {
    if (this.#caches !== undefined) throw errors.invalidArgument('caches', caches, 'registered once');
    this.#caches = caches;
    this.#link.open();
  }

  /** Hands the memory over, on a new connection. */
  register(call: Call, session: number, greeted: Greeted): void {
    const { descriptors } = greeted;
    const { memories, layout } = this.#caches as KvCaches;
    const shared = memories.map((memory, index) => {
      if (!(memory instanceof Uint8Array)) return deviceMemory(`memories[${index}]`, memory, greeted);
      const ticket = randomBytes(16);
      const offset = share(`memories[${index}]`, descriptors, ticket, memory);
      return { kind: 'memfd', ticket, offset, length: memory.length };
    });
    const plain = JSON.parse(JSON.stringify(layout(memories.map((_, index) => index))));
    const answer = call('worker.register', { session, memories: shared, layout: plain }) as { handshake: Uint8Array };
    const { address } = (decodeHandshake('handshake', answer.handshake).data ?? {}) as { address?: string };
    this.#handshake = { handshake: answer.handshake, address };
  }

  /** With the `address` at which a rank is reached that hands over. */
  getHandshakeMetadata(): unknown {
    return this.#handshake;
  }

  bindConnectorMetadata(metadata: unknown): void {
    this.#metadata = metadata as ClientMetadata;
    for (const [id, isAsync, blocks] of this.#metadata.loads) this.#loads.set(id, { async: isAsync, blocks });
    for (const id of this.#metadata.held) this.#held.add(id);
    const { lost } = this.#metadata;
    if (lost === null) return;
    // Of a later run, the worker half knows nothing of what was lost but what this step says.
    if (this.#link.run === lost) this.#link.lose();
    void this.#give();
  }

  clearConnectorMetadata(): void {
    this.#metadata = undefined;
    this.#work = { loads: false, saves: false };
    for (const [id, load] of this.#loads) if (!load.async) this.#loads.delete(id);
    this.#link.revive();
  }

  async handlePreemptions(requestIds: readonly string[]): Promise<void> {
    // They come again, if they do, as new ones.
    for (const id of requestIds) this.#loads.delete(id);
    const meta = this.#metadata?.meta ?? null;
    if (meta === null && requestIds.length === 0) return;
    this.#step = this.#link.call<WorkAnswer>('worker.step', { meta, preempted: requestIds });
    // Where no layer is computed, nobody waits for it.
    this.#step.catch(() => {});
    if (requestIds.length > 0) await this.#step;
    if (!this.#link.up) await this.#link.patiently(this.#link.ended);
  }

  startLoadKv(): void {}

  async waitForLayerLoad(layer: number): Promise<void> {
    await this.#started();
    if (this.#work.loads) await this.#link.call('worker.layerLoad', { layer }, LAYER_MS);
    if (!this.#link.up) await this.#link.patiently(this.#give());
  }

  saveKvLayer(layer: number): void {
    if (this.#work.saves) this.#link.send('worker.layerSaved', { layer });
  }

  async waitForSave(): Promise<void> {
    await this.#started();
    if (this.#work.loads || this.#work.saves) await this.#link.call('worker.saved', {}, LAYER_MS);
    if (!this.#link.up) await this.#link.patiently(this.#give());
  }

  getFinished(finished: readonly string[]): { sending: string[]; receiving: string[] } {
    const answer = this.#link.now<FinishedAnswer>('worker.finished', { finished });
    if (answer === undefined) this.#unreported();
    else this.#stats = answer.stats;
    const [sending, receiving] = [this.#sent, this.#received];
    [this.#sent, this.#received] = [[], []];
    for (const id of answer?.sending ?? []) if (this.#held.delete(id)) sending.push(id);
    for (const id of answer?.receiving ?? []) if (this.#loads.delete(id)) receiving.push(id);
    this.#failed.push(...(answer?.invalid ?? []));
    return { sending, receiving };
  }

  getBlockIdsWithLoadErrors(): number[] {
    const failed = this.#failed;
    this.#failed = [];
    return failed;
  }

  stats(): ConnectorStats {
    return this.#stats;
  }

  shutdown(): Promise<void> {
    return this.#link.close();
  }

  async #started(): Promise<void> {
    const work = await this.#step;
    this.#step = undefined;
    if (work !== undefined) this.#work = work;
  }

  /** Whether the loads of this step went well is not known any more; they have ended, so that the engine may compute at once. */
  #unreported(): void {
    for (const [id, load] of this.#loads) {
      if (load.async) continue;
      this.#loads.delete(id);
      this.#failed.push(...load.blocks);
    }
    void this.#give();
  }

  /** The service is lost: when nothing touches the memory any more, everything that it had to do is reported as it is. */
  async #give(): Promise<void> {
    const loads = [...this.#loads];
    const held = [...this.#held];
    await this.#link.ended;
    for (const [id, load] of loads) {
      if (this.#loads.get(id) !== load) continue;
      this.#loads.delete(id);
      this.#failed.push(...load.blocks);
      if (load.async) this.#received.push(id);
    }
    for (const id of held) if (this.#held.delete(id)) this.#sent.push(id);
  }
}

/** A GPU's memory goes by the handle, or the descriptors, of the process that has it. */
function deviceMemory(argument: string, given: DeviceMemory, greeted: Greeted) {
  const memory = checkDevice(given, argument);
  const { device, length } = memory;
  if ('handle' in memory) {
    const { handle, offset = 0 } = memory;
    return { kind: 'cuda-ipc', device, handle, offset, length };
  }
  const parts = 'parts' in memory ? memory.parts : 'fd' in memory ? [memory] : undefined;
  if (parts === undefined) {
    throw errors.notSupported(
      `${argument}: an address of this process, or a fabric handle`,
      'give its IPC handle or descriptor',
    );
  }
  if (!greeted.features?.includes('cuda-vmm-fd')) {
    throw errors.notSupported(
      `${argument}: memory of cuMemCreate`,
      `the service, version ${greeted.version}, takes none`,
    );
  }
  const { offset = 0 } = memory as { offset?: number };
  const handed = parts.map(({ fd, size }) => {
    const ticket = randomBytes(16);
    handOver(
      argument,
      greeted.descriptors,
      'is it a descriptor that cuMemExportToShareableHandle made?',
      (addon, path) => addon.shareAllocation(path, ticket, fd, size, SHARE_MS),
    );
    return { ticket, size };
  });
  return { kind: 'cuda-vmm-fd', device, parts: handed, offset, length };
}

/** Where the memory begins in the descriptor that was handed over. */
function share(argument: string, descriptors: string | null, ticket: Uint8Array, memory: Uint8Array): number {
  const hint = 'a service can only map memory of sharedMemory()';
  return handOver(argument, descriptors, hint, (addon, path) => addon.shareMemory(path, ticket, memory, SHARE_MS));
}

function handOver<T>(
  argument: string,
  descriptors: string | null,
  hint: string,
  hand: (addon: Addon, path: string) => T,
): T {
  const { addon } = loadAddon();
  if (addon === undefined || descriptors === null) {
    throw errors.notSupported(argument, 'memory goes to a service by the accelerator, which one of the two has not');
  }
  try {
    return hand(addon, descriptors);
  } catch (cause) {
    const why = `${argument}: ${(cause as Error).message}; ${hint}`;
    throw new MooncakeError('ERR_NOT_SUPPORTED', why, { argument, cause });
  }
}
