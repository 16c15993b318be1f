/**
 * Where engines find each other's ranks. One `Bootstrap` per transfer serves the hand-over messages for every rank that
 * is reached through it, of whatever engine: any rank's address answers for its whole engine (`roster`), and a message for
 * an engine, rank or generation that has gone is refused by name, so that a restarted engine is never mistaken for the one
 * that was there.
 */
import { integer, string } from '../core/check.js';
import { errors } from '../core/errors.js';
import type { RequestContext, Transfer } from '../transfer/transfer.js';
import { type RankInfo, unknown } from './handover.js';
import { HANDOVER_SERVICE, type Message, record } from './handover-wire.js';

/** A rank that answers hand-over messages. */
export interface Endpoint {
  readonly info: RankInfo;
  /** All ranks of its engine; waits until its scheduler has told it. */
  roster(signal: AbortSignal): Promise<readonly RankInfo[]>;
  /** Answers one of its operations. */
  answer(op: string, message: Message, context: RequestContext): unknown;
}

export class Bootstrap {
  static readonly #byTransfer = new WeakMap<Transfer, Bootstrap>();

  readonly #transfer: Transfer;
  readonly #endpoints = new Set<Endpoint>();
  #stopServing: (() => void) | undefined;

  /** The one of this transfer. */
  static of(transfer: Transfer): Bootstrap {
    let bootstrap = Bootstrap.#byTransfer.get(transfer);
    if (bootstrap === undefined) Bootstrap.#byTransfer.set(transfer, (bootstrap = new Bootstrap(transfer)));
    return bootstrap;
  }

  private constructor(transfer: Transfer) {
    this.#transfer = transfer;
  }

  /** Serves a rank until the returned function is called. Throws where another one has its engine id and rank. */
  add(endpoint: Endpoint): () => void {
    const { engine, rank } = endpoint.info;
    if (this.#find(engine).some(({ info }) => info.rank === rank)) {
      throw errors.invalidArgument(
        'engineId',
        engine,
        `one whose rank ${rank} is not reached at ${this.#transfer.address} yet`,
      );
    }
    this.#endpoints.add(endpoint);
    this.#stopServing ??= this.#transfer.serve(HANDOVER_SERVICE, (message, context) => this.#answer(message, context));
    return () => {
      this.#endpoints.delete(endpoint);
      if (this.#endpoints.size > 0) return;
      this.#stopServing?.();
      this.#stopServing = undefined;
    };
  }

  #find(engine: string): Endpoint[] {
    return [...this.#endpoints].filter(({ info }) => info.engine === engine);
  }

  #answer(value: unknown, context: RequestContext): unknown {
    const message = record('message', value);
    const op = string('op', message.op);
    const engine = string('engine', message.engine);
    const ranks = this.#find(engine);
    if (ranks.length === 0) throw unknown('engine', engine, `is not reached at ${this.#transfer.address} (any more)`);
    if (op === 'roster') return ranks[0].roster(context.signal);
    const rank = integer('rank', message.rank, 0, Number.MAX_SAFE_INTEGER);
    const endpoint = ranks.find(({ info }) => info.rank === rank);
    if (endpoint === undefined) throw unknown('rank', rank, `of engine ${engine} is not reached here`);
    if (message.generation !== endpoint.info.generation) {
      throw unknown('generation', message.generation, `rank ${rank} of engine ${engine} was restarted since`);
    }
    return op === 'rank' ? endpoint.info : endpoint.answer(op, message, context);
  }
}
