/**
 * Mooncake's handshakes: one request and one answer of the same type a connection, then it closes.
 *
 *   length u64, little-endian: 1 + bytes of the text · type u8 · JSON text
 *
 * Peers older than the type byte send the text alone; they mean type 0, and are answered without the byte too.
 */
import { connect } from 'node:net';
import { errors } from '../../core/errors.js';
import { type Limits, watch } from '../limits.js';
import type { Place } from '../tcp/address.js';
import { formatName } from './name.js';

export const HANDSHAKE = { connection: 0, metadata: 1, notify: 2, probe: 3 } as const;

const LENGTH_BYTES = 8;
/** What stock engines take at most. */
export const MAX_REQUEST_BYTES = 2 ** 20;
/** Descriptors of peers with very many segments are larger than what stock engines take. */
const MAX_ANSWER_BYTES = 16 * 2 ** 20;

const decoder = new TextDecoder('utf-8', { fatal: true });

/** `type` undefined: without the byte. */
export function handshakeFrame(type: number | undefined, text: string): Uint8Array {
  const body = Buffer.from(text);
  const typeBytes = type === undefined ? 0 : 1;
  const frame = Buffer.alloc(LENGTH_BYTES + typeBytes + body.length);
  frame.writeBigUInt64LE(BigInt(typeBytes + body.length));
  if (type !== undefined) frame[LENGTH_BYTES] = type;
  frame.set(body, LENGTH_BYTES + typeBytes);
  return frame;
}

export interface Handshake {
  /** Undefined: sent without the byte. */
  type?: number;
  text: string;
}

/** Collects one frame as it arrives. */
export class HandshakeReader {
  readonly #chunks: Uint8Array[] = [];
  readonly #most: number;
  #bytes = 0;

  constructor(mostBytes: number) {
    this.#most = mostBytes;
  }

  /** The frame once it is whole; undefined before. `bytes` is copied. Throws ERR_PROTOCOL. */
  push(bytes: Uint8Array): Handshake | undefined {
    this.#chunks.push(new Uint8Array(bytes));
    this.#bytes += bytes.length;
    if (this.#bytes < LENGTH_BYTES) return undefined;
    if (this.#chunks[0].length < LENGTH_BYTES) this.#join();
    const length = Buffer.from(this.#chunks[0].buffer).readBigUInt64LE();
    if (length < 1 || length > this.#most) throw errors.protocol('a handshake of a length that none has', length);
    if (this.#bytes < LENGTH_BYTES + Number(length)) return undefined;
    const frame = this.#join();
    if (frame.length > LENGTH_BYTES + Number(length)) {
      throw errors.protocol('more bytes than the handshake has', frame.length - LENGTH_BYTES - Number(length));
    }
    const typed = frame[LENGTH_BYTES] <= HANDSHAKE.probe;
    try {
      const text = decoder.decode(frame.subarray(LENGTH_BYTES + (typed ? 1 : 0)));
      return typed ? { type: frame[LENGTH_BYTES], text } : { text };
    } catch {
      throw errors.protocol('a handshake that is not UTF-8');
    }
  }

  #join(): Uint8Array {
    const joined = new Uint8Array(this.#bytes);
    let at = 0;
    for (const chunk of this.#chunks) {
      joined.set(chunk, at);
      at += chunk.length;
    }
    this.#chunks.splice(0, this.#chunks.length, joined);
    return joined;
  }
}

/**
 * Sends one handshake; the text of the answer.
 * @throws ERR_PEER where nobody answers, ERR_PROTOCOL where the answer is none, ERR_TIMEOUT, ERR_ABORTED
 */
export function exchange(place: Place, type: number, text: string, limits: Limits): Promise<string> {
  const name = formatName(place);
  return new Promise((resolve, reject) => {
    const reader = new HandshakeReader(MAX_ANSWER_BYTES);
    const socket = connect(place);
    const finish = (settle: () => void) => {
      stop();
      socket.destroy();
      settle();
    };
    const fail = (error: unknown) => finish(() => reject(error));
    const stop = watch(`the handshake with ${name}`, limits, fail);
    socket.on('connect', () => socket.write(handshakeFrame(type, text)));
    socket.on('error', (error) => fail(errors.peer(name, error.message, error)));
    socket.on('close', () => fail(errors.peer(name, 'closed the connection without an answer')));
    socket.on('data', (bytes) => {
      try {
        const answer = reader.push(bytes);
        if (!answer) return;
        if (answer.type !== type) throw errors.protocol('an answer of another type than the handshake', answer.type);
        finish(() => resolve(answer.text));
      } catch (error) {
        fail(error);
      }
    });
  });
}
