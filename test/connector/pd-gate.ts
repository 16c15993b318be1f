/**
 * A transfer that can be stopped at each step of a hand-over: what a slow network does, at the moment that a test
 * chooses. Moves and messages go through the real one.
 */
import type { CallLimits, MoveReport, Peer, RequestContext, RequestHandler, Transfer } from 'mooncake-ts';

export type Step = 'connect' | 'segment' | 'read' | 'write' | 'roster' | 'rank' | 'take' | 'push' | 'done' | 'release';

interface Gate {
  waiting: number;
  opened: Promise<void>;
  open(): void;
}

export class GatedTransfer implements Transfer {
  readonly #inner: Transfer;
  readonly #peers = new WeakMap<Peer, Peer>();
  readonly #gates = new Map<Step, Gate>();
  /** Moves cannot be stopped once they were asked for. */
  stubborn = false;
  /** Told of each move that has ended well. */
  onMoved: (step: 'read' | 'write', report: MoveReport) => void = () => {};

  /** Where peers are told to find it; a test may put something between. */
  address: string;

  constructor(inner: Transfer) {
    this.#inner = inner;
    this.address = inner.address;
  }

  get generation() {
    return this.#inner.generation;
  }

  /** From now on nothing gets past this step. */
  shut(step: Step): void {
    let open!: () => void;
    const opened = new Promise<void>((resolve) => {
      open = resolve;
    });
    this.#gates.set(step, { waiting: 0, opened, open });
  }

  open(step: Step): void {
    this.#gates.get(step)?.open();
    this.#gates.delete(step);
  }

  /** How many stand before the step. */
  waiting(step: Step): number {
    return this.#gates.get(step)?.waiting ?? 0;
  }

  async #pass(step: Step, signal?: AbortSignal): Promise<void> {
    const gate = this.#gates.get(step);
    if (gate === undefined) return;
    gate.waiting++;
    const aborted = new Promise<void>((resolve) => signal?.addEventListener('abort', () => resolve(), { once: true }));
    if (!signal?.aborted) await Promise.race([gate.opened, aborted]);
    gate.waiting--;
  }

  #gated(peer: Peer): Peer {
    const known = this.#peers.get(peer);
    if (known) return known;
    const move = (step: 'read' | 'write'): Peer['read'] => {
      return async (descriptors, options) => {
        await this.#pass(step, this.stubborn ? undefined : options?.signal);
        const report = await peer[step](descriptors, this.stubborn ? { ...options, signal: undefined } : options);
        this.onMoved(step, report);
        return report;
      };
    };
    const gated: Peer = {
      address: peer.address,
      generation: peer.generation,
      closed: peer.closed,
      segment: async (name, limits) => {
        await this.#pass('segment', limits?.signal);
        return peer.segment(name, limits);
      },
      read: move('read'),
      write: move('write'),
      call: async (service, message, limits) => {
        await this.#pass((message as { op: Step }).op, limits?.signal);
        return peer.call(service, message, limits);
      },
      close: () => peer.close(),
    };
    this.#peers.set(peer, gated);
    return gated;
  }

  async connect(address: string, limits?: CallLimits): Promise<Peer> {
    await this.#pass('connect', limits?.signal);
    return this.#gated(await this.#inner.connect(address, limits));
  }

  serve(service: string, handler: RequestHandler): () => void {
    return this.#inner.serve(service, (message, { peer, signal }: RequestContext) =>
      handler(message, { peer: this.#gated(peer), signal }),
    );
  }

  register: Transfer['register'] = (memory, options) => this.#inner.register(memory, options);
  unregister: Transfer['unregister'] = (segment) => this.#inner.unregister(segment);
  memory: Transfer['memory'] = (segment) => this.#inner.memory(segment);
  copy: Transfer['copy'] = (descriptors, options) => this.#inner.copy(descriptors, options);
  close: Transfer['close'] = () => this.#inner.close();
}
