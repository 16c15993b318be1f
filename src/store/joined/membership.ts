/**
 * Being a client of the master: the segments it was told of, a ping every second, and all of them told again when it asks for
 * that, because it was restarted or has not heard of us for too long. What the master said before that moment, leases and
 * room for puts, does not hold any more: `onForgotten` ends what relies on it.
 */
import { errors, MooncakeError } from '../../core/errors.js';
import type { SegmentInfo, Uuid } from '../../master/api.js';
import { STATUS } from '../../master/status.js';
import { METHODS } from '../../rpc/schemas/v0_3_13.js';
import type { Limits } from '../../transfer/limits.js';
import { statusError } from '../status.js';
import type { MasterLink } from './link.js';
import { statusOf } from './metadata.js';
import { segmentToWire } from './wire.js';

/** What ServiceReady of the masters says whose schemas are ours (docs/compatibility.md). */
const VERSION = '2.0.0';
const PING_MS = 1000;
/** A master that does not answer a ping in this time hangs. */
const ANSWER_MS = 3000;
/** While the master cannot be reached. */
const RETRY_MS = 200;
/** Mooncake's ClientStatus. */
const NEED_REMOUNT = 2;

export class Membership {
  readonly client: Uuid;
  readonly #link: MasterLink;
  readonly #onForgotten: () => void;
  readonly #mounted = new Map<Uuid, SegmentInfo>();
  #timer?: NodeJS.Timeout;
  #left = false;
  /** The master has taken our segments once: a ping that asks for them again means that it has forgotten us. */
  #isKnown = false;

  constructor(link: MasterLink, client: Uuid, onForgotten: () => void) {
    this.#link = link;
    this.client = client;
    this.#onForgotten = onForgotten;
  }

  /** Throws ERR_PEER where no master answers, ERR_NOT_SUPPORTED where it is of another version. */
  async join(segments: readonly SegmentInfo[], limits: Limits): Promise<void> {
    const ready = await this.#link.call(METHODS.ServiceReady, {}, limits);
    if (!ready.ok) throw errors.peer(this.#link.address, `the master is not ready: status ${ready.error}`);
    if (ready.value !== VERSION) {
      throw errors.notSupported(`a master of version ${ready.value}`, `this client speaks version ${VERSION}`);
    }
    for (const segment of segments) await this.mount(segment, limits);
    await this.#remount(limits);
    this.#schedule(PING_MS);
  }

  /** Lends a segment. @throws what its status means */
  async mount(segment: SegmentInfo, limits: Limits): Promise<void> {
    const { client } = this;
    const status = statusOf(
      await this.#link.call(METHODS.MountSegment, { segment: segmentToWire(segment), client }, limits),
    );
    if (status !== STATUS.ok) throw statusError(status, segment.name, 'the master refused the segment');
    this.#mounted.set(segment.id, segment);
  }

  /**
   * Takes a segment away: at once, or when `graceMs` have passed in which it can be read. May be called again, whatever the master
   * has done about it before.
   */
  async unmount({ id, name }: SegmentInfo, graceMs: number, limits: Limits): Promise<void> {
    const { client } = this;
    const answer =
      graceMs > 0
        ? await this.#link.call(
            METHODS.GracefulUnmountSegment,
            { segment: id, client, graceMs: BigInt(graceMs) },
            limits,
          )
        : await this.#link.call(METHODS.UnmountSegment, { segment: id, client }, limits);
    const status = statusOf(answer);
    // A grace that was begun before may be over by now.
    const over = status === STATUS.invalidParams && !this.#mounted.has(id);
    if (status !== STATUS.ok && !over) throw statusError(status, name, 'the master refused to unmount the segment');
    this.#mounted.delete(id);
  }

  /** No more pings. */
  leave(): void {
    this.#left = true;
    clearTimeout(this.#timer);
  }

  #schedule(milliseconds: number): void {
    if (this.#left) return;
    this.#timer = setTimeout(() => {
      this.#ping().then(
        () => this.#schedule(PING_MS),
        (error: unknown) => {
          this.#link.isSilent(error);
          this.#schedule(RETRY_MS);
        },
      );
    }, milliseconds).unref();
  }

  async #ping(): Promise<void> {
    const limits = { timeoutMs: ANSWER_MS };
    const answer = await this.#link.call(METHODS.Ping, { client: this.client }, limits);
    if (!answer.ok) throw errors.peer(this.#link.address, `a ping was answered with status ${answer.error}`);
    if (answer.value.clientState !== NEED_REMOUNT || this.#left) return;
    if (this.#isKnown) this.#onForgotten();
    await this.#remount(limits);
  }

  async #remount(limits: Limits): Promise<void> {
    const segments = [...this.#mounted.values()].map(segmentToWire);
    const answer = await this.#link.call(METHODS.ReMountSegment, { segments, client: this.client }, limits);
    if (!answer.ok) throw new MooncakeError('ERR_PEER', `the master refused to remount: status ${answer.error}`);
    this.#isKnown = true;
  }
}
