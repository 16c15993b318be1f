/** Requests and answers, both ways: small messages, each with a deadline, each answered exactly once. */
import { errors, type MooncakeError } from '../../core/errors.js';
import { type Limits, watch } from '../limits.js';
import { pack, packFailure, unpack } from '../messages.js';
import { Answering, RESERVED } from '../services.js';
import type { Peer } from '../transfer.js';
import { type NativeSegment, readNativeSegment } from './accelerator.js';
import { callPayload, FRAME, type Header, MAX_CALLS, readCall } from './frames.js';
import type { MoveLink } from './moves.js';

/** The transfer's own service: a segment's name to its number and length. */
const SEGMENT = `${RESERVED}segment`;
/** As well: a segment's number to its place in the accelerator's engine, or null. */
const NATIVE = `${RESERVED}native`;

export interface CallLink extends MoveLink {
  readonly peer: Peer;
  /** Where our segment lies in the accelerator's engine. */
  findNative(segment: number): NativeSegment | undefined;
}

interface Asked {
  resolve(answer: unknown): void;
  end(error: MooncakeError): void;
}

export class Calls {
  readonly #link: CallLink;
  readonly #answering: Answering;
  /** Ours; undefined for one that was given up and is not answered yet. */
  readonly #asked = new Map<number, Asked | undefined>();

  constructor(link: CallLink) {
    this.#link = link;
    this.#answering = new Answering(link.core.services, MAX_CALLS);
  }

  async segment(name: string, limits: Limits): Promise<{ id: number; length: number }> {
    const answer = (await this.call(SEGMENT, name, limits)) as Partial<{ id: number; length: number }> | null;
    const [id, length] = [answer?.id, answer?.length];
    if (!Number.isInteger(id) || !Number.isSafeInteger(length)) throw errors.protocol('a segment of no size', answer);
    return { id: id!, length: length! };
  }

  async native(segment: number, limits: Limits): Promise<NativeSegment | undefined> {
    return readNativeSegment(await this.call(NATIVE, segment, limits));
  }

  call(service: string, message: unknown, limits: Limits): Promise<unknown> {
    const { output, address, peerFrameBytes } = this.#link;
    // A call's name has at most 255 bytes; the message has the rest of a frame.
    const payload = callPayload(service, pack('message', message, peerFrameBytes - 256));
    if (this.#asked.size >= MAX_CALLS) throw errors.queueFull(MAX_CALLS);
    output.checkRoom();
    const id = this.#link.nextId();
    return new Promise((resolve, reject) => {
      const stop = watch(`${service} at ${address}`, limits, (error) => {
        this.#asked.set(id, undefined);
        reject(error);
        output.send(FRAME.cancel, id);
      });
      this.#asked.set(id, {
        resolve: (answer) => {
          stop();
          resolve(answer);
        },
        end: (error) => {
          stop();
          reject(error);
        },
      });
      output.send(FRAME.call, id, payload);
    });
  }

  /** The peer's answer. Throws ERR_PROTOCOL. */
  answered(id: number, payload: Uint8Array): void {
    if (!this.#asked.has(id)) throw errors.protocol('an answer that nobody waits for', id);
    const asked = this.#asked.get(id);
    const answer = unpack(payload);
    this.#asked.delete(id);
    asked?.resolve(answer);
  }

  /** The peer's refusal. False: it is none of ours. */
  failed(id: number, error: MooncakeError): boolean {
    if (!this.#asked.has(id)) return false;
    const asked = this.#asked.get(id);
    this.#asked.delete(id);
    asked?.end(error);
    return true;
  }

  /** A request of the peer's. Throws ERR_PROTOCOL. */
  serve(header: Header, payload: Uint8Array): void {
    const { id } = header;
    const { output, peer } = this.#link;
    const { service, message } = readCall(payload);
    const request = unpack(message);
    const answer = this.#own(service, request) ?? this.#answering.run(id, service, request, peer);
    answer
      .then((value) => {
        const packed = pack('answer', value, this.#link.peerFrameBytes);
        output.checkRoom();
        output.send(FRAME.answer, id, packed);
      })
      .catch((error) => output.send(FRAME.failure, id, packFailure(error)));
  }

  /** Undefined: the service is none of the transfer's own. */
  #own(service: string, request: unknown): Promise<unknown> | undefined {
    if (service === SEGMENT) return this.#findSegment(request);
    if (service !== NATIVE) return undefined;
    const found = typeof request === 'number' ? this.#link.findNative(request) : undefined;
    return Promise.resolve(found ? { ...found } : null);
  }

  async #findSegment(name: unknown): Promise<{ id: number; length: number }> {
    const segment = typeof name === 'string' ? this.#link.core.find(name) : undefined;
    if (!segment) throw errors.segment('name', name, 'the peer has no segment of that name');
    return { id: segment.id, length: segment.length };
  }

  serves(id: number): boolean {
    return this.#answering.has(id);
  }

  cancel(id: number, error: MooncakeError): void {
    this.#answering.cancel(id, error);
  }

  /** The connection has ended: so has every request, ours and theirs. */
  end(error: MooncakeError): void {
    for (const asked of this.#asked.values()) asked?.end(error);
    this.#asked.clear();
    this.#answering.end(error);
  }
}
