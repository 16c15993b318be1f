/**
 * MooncakeConnector: hands the KV blocks of a prompt from the engine that computed it to the engine that decodes it, rank
 * to rank, without a store between. The flow and its parameters are those of vLLM's MooncakeConnector (vLLM 0.32,
 * kv_connector/v1/mooncake), so the same router serves both; docs/connectors.md has the sequence.
 */
import { integer, options as object, oneOf } from '../core/check.js';
import { errors, type MooncakeError } from '../core/errors.js';
import type { Transfer, Verify } from '../transfer/transfer.js';
import type { EngineInfo, KvConnector, SchedulerConnector, WorkerConnector } from './api.js';
import type { HandoverMode, LoadName } from './decode.js';
import { Slots } from './handover-slots.js';
import { readVerify } from './handover-wire.js';
import { MooncakeScheduler } from './mooncake-scheduler.js';
import { MooncakeWorker } from './mooncake-worker.js';

export interface MooncakeConnectorOptions {
  /** How ranks are reached: one transfer for all ranks of this process, or one for each. They stay the caller's to close. */
  transfer: Transfer | ((rank: number) => Transfer);
  /** Whether a decode reads the blocks, or has the prefill write them, early or late. The decode's choice alone. Default `pull`. */
  mode?: HandoverMode;
  /** Which bytes of its loads a decode has compared with the sender's checksums. Default: the transfer's, which is `full`. */
  verify?: Verify;
  /** How long a prefill keeps blocks that no decode has fetched, in milliseconds. Default 480,000, as vLLM. */
  abortTimeoutMs?: number;
  /** How long a decode waits for the prefill and its bytes before it computes the prompt itself. Default 120,000. */
  loadTimeoutMs?: number;
  /** Moves that a rank runs at once; further ones wait. Default 8. */
  maxConcurrentMoves?: number;
  /** Told why a load failed, for a log: the engine only learns which blocks to compute. */
  onLoadError?: (error: MooncakeError, load: LoadName) => void;
}

const MAX_TIMEOUT_MS = 0x7fff_ffff;

export class MooncakeConnector implements KvConnector {
  readonly name = 'MooncakeConnector';
  readonly #transfer: (rank: number) => Transfer;
  readonly #options: Omit<ConstructorParameters<typeof MooncakeWorker>[3], 'slots'>;
  readonly #moves: number;

  /** Throws ERR_INVALID_ARGUMENT, naming the option. */
  constructor(options: MooncakeConnectorOptions) {
    const given = object('options', options);
    const { transfer, mode = 'pull', onLoadError } = given;
    if (typeof transfer !== 'function' && (typeof transfer !== 'object' || transfer === null)) {
      throw errors.invalidArgument('transfer', transfer, 'a Transfer, or a function from rank to Transfer');
    }
    this.#transfer = typeof transfer === 'function' ? transfer : () => transfer;
    const milliseconds = (name: 'abortTimeoutMs' | 'loadTimeoutMs', otherwise: number) =>
      integer(name, given[name] ?? otherwise, 1, MAX_TIMEOUT_MS);
    this.#options = {
      mode: oneOf('mode', mode, ['pull', 'push', 'layers']),
      verify: readVerify(given.verify),
      abortTimeoutMs: milliseconds('abortTimeoutMs', 480_000),
      loadTimeoutMs: milliseconds('loadTimeoutMs', 120_000),
      onLoadError,
    };
    this.#moves = integer('maxConcurrentMoves', given.maxConcurrentMoves ?? 8, 1, 1 << 16);
  }

  createScheduler(engine: EngineInfo): SchedulerConnector {
    return new MooncakeScheduler(engine);
  }

  createWorker(engine: EngineInfo, rank: number): WorkerConnector {
    const size = engine.tensorParallelSize ?? 1;
    integer('rank', rank, 0, size - 1);
    return new MooncakeWorker(engine, rank, this.#transfer(rank), { ...this.#options, slots: new Slots(this.#moves) });
  }
}
