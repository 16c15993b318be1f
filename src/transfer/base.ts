/**
 * What every transfer has whatever carries its bytes: registered segments, services, defaults, and copies within its own
 * memory. Peers of a transfer work on its `TransferCore`.
 */
import { randomBytes } from 'node:crypto';
import { integer, options as optionsOf } from '../core/check.js';
import { Descriptors } from '../core/descriptors.js';
import { errors, type MooncakeError } from '../core/errors.js';
import { copyRanges } from './copy.js';
import { checkLimits, type Limits, MAX_TIMEOUT_MS } from './limits.js';
import { Ranges } from './ranges.js';
import { SegmentTable } from './segments.js';
import { Services } from './services.js';
import type {
  CallLimits,
  MoveOptions,
  MoveReport,
  Peer,
  RegisterOptions,
  RequestHandler,
  Transfer,
  Verify,
} from './transfer.js';

export interface TransferOptions {
  /** Deadline of operations that name none, in milliseconds. Default 30,000. */
  timeoutMs?: number;
  /** Which moves are verified where they do not say. Default `full`. */
  verify?: Verify;
}

function checkVerify(argument: string, verify: Verify): Verify {
  if (verify === 'full' || verify === 'off') return verify;
  if (typeof verify !== 'object' || verify === null) {
    throw errors.invalidArgument(argument, verify, '"full", "off" or { sampled: N }');
  }
  integer(`${argument}.sampled`, verify.sampled, 1, Number.MAX_SAFE_INTEGER);
  return verify;
}

/** A move whose arguments are checked. */
export interface Move {
  /** A copy of the caller's, who may write his own again. */
  descriptors: Descriptors;
  limits: Limits;
  verify: boolean;
}

export class TransferCore {
  readonly generation = randomBytes(8).toString('hex');
  readonly segments = new SegmentTable();
  readonly services = new Services();
  readonly timeoutMs: number;
  readonly #verify: Verify;
  #sampled = 0;

  constructor({ timeoutMs = 30_000, verify = 'full' }: TransferOptions) {
    this.timeoutMs = integer('options.timeoutMs', timeoutMs, 1, MAX_TIMEOUT_MS);
    this.#verify = checkVerify('options.verify', verify);
  }

  limits(limits: CallLimits | undefined): Limits {
    return checkLimits(limits, this.timeoutMs);
  }

  move(descriptors: Descriptors, options: MoveOptions | undefined): Move {
    if (!(descriptors instanceof Descriptors)) {
      throw errors.invalidArgument('descriptors', descriptors, 'Descriptors');
    }
    const { verify = this.#verify } = optionsOf('options', options);
    checkVerify('options.verify', verify);
    const limits = this.limits(options);
    return { descriptors: new Descriptors(descriptors.bytes.slice()), limits, verify: this.#verifies(verify) };
  }

  /** The first of every N batches is verified where one in N is. */
  #verifies(verify: Verify): boolean {
    return typeof verify === 'object' ? this.#sampled++ % verify.sampled === 0 : verify === 'full';
  }
}

export abstract class TransferBase implements Transfer {
  abstract readonly address: string;
  /** Copies of `copy` under way, by how to end them. */
  readonly #copies = new Set<(error: MooncakeError) => void>();
  #closing?: Promise<void>;

  constructor(protected readonly core: TransferCore) {}

  get generation(): string {
    return this.core.generation;
  }

  protected checkOpen(): void {
    if (this.#closing) throw this.closedError();
  }

  protected closedError(): MooncakeError {
    return errors.closed(`transfer ${this.address}`);
  }

  register(memory: Uint8Array, options?: RegisterOptions): number {
    this.checkOpen();
    return this.core.segments.register(memory, options);
  }

  unregister(segment: number): Promise<void> {
    return this.core.segments.unregister(segment);
  }

  memory(segment: number): Uint8Array {
    return this.core.segments.get(segment, 'segment').memory;
  }

  async copy(descriptors: Descriptors, options?: MoveOptions): Promise<MoveReport> {
    this.checkOpen();
    const move = this.core.move(descriptors, options);
    const source = new Ranges(move.descriptors, 'source', this.core.segments);
    const destination = new Ranges(move.descriptors, 'destination', this.core.segments);
    let end!: (error: MooncakeError) => void;
    return copyRanges(move.descriptors, source, destination, {
      ...move,
      onStart: (how) => this.#copies.add((end = how)),
      onEnd: () => this.#copies.delete(end),
    });
  }

  serve(service: string, handler: RequestHandler): () => void {
    this.checkOpen();
    return this.core.services.serve(service, handler);
  }

  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  async #close(): Promise<void> {
    for (const end of [...this.#copies]) end(this.closedError());
    await this.disconnect();
  }

  abstract connect(address: string, limits?: CallLimits): Promise<Peer>;

  /** Ends all peers with ERR_CLOSED and stops listening. */
  protected abstract disconnect(): Promise<void>;
}
