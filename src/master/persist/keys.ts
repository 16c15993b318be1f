/**
 * Keys as records carry them: what a key has in common with the one before it in its frame is left out, and the rest is
 * packed two digits a byte where it is lower-case hex. A stock key of 135 bytes takes 35, most of it a hash.
 *
 *     varint   bytes in common << 1 | whether the rest is packed
 *     varint   bytes that follow
 */
import { errors } from '../../core/errors.js';
import { MAX_KEY_BYTES } from '../../core/keys.js';
import type { ByteReader, ByteWriter } from './bytes.js';

const NONE = 255;
/** Value of a lower-case hex digit, by its character. */
const DIGITS = new Uint8Array(256).fill(NONE);
for (let value = 0; value < 16; value++) DIGITS[value.toString(16).charCodeAt(0)] = value;
const TEXT = Buffer.from('0123456789abcdef');

function isHex(key: Uint8Array, from: number): boolean {
  for (let at = from; at < key.length; at++) if (DIGITS[key[at]] === NONE) return false;
  return true;
}

/** The last key of a frame, on either side. Each frame starts afresh, so that it can be read alone. */
export class KeyChain {
  readonly #last = Buffer.alloc(MAX_KEY_BYTES);
  #length = 0;

  reset(): void {
    this.#length = 0;
  }

  write(key: Uint8Array, to: ByteWriter): void {
    const last = this.#last;
    const most = Math.min(key.length, this.#length);
    let common = 0;
    while (common < most && key[common] === last[common]) common++;
    // Two digits a byte: where their number is odd, one is taken back from what is in common.
    if ((key.length - common) % 2 === 1 && common > 0 && DIGITS[key[common - 1]] !== NONE) common--;
    const rest = key.length - common;
    const packed = rest > 0 && rest % 2 === 0 && isHex(key, common);
    to.varint(common * 2 + (packed ? 1 : 0));
    if (packed) {
      to.varint(rest / 2);
      to.reserve(rest / 2);
      for (let at = common; at < key.length; at += 2) to.u8((DIGITS[key[at]] << 4) | DIGITS[key[at + 1]]);
    } else {
      to.varint(rest);
      to.bytes(key.subarray(common));
    }
    last.set(key.subarray(common), common);
    this.#length = key.length;
  }

  /** A view that the next key ends. */
  read(from: ByteReader): Uint8Array {
    const head = from.varint();
    const common = Math.floor(head / 2);
    const bytes = from.bytes(from.varint());
    const length = common + (head % 2 === 1 ? 2 * bytes.length : bytes.length);
    const last = this.#last;
    if (common > this.#length || length > MAX_KEY_BYTES || length === 0) throw errors.protocol('a key is none', length);
    if (head % 2 === 1) {
      for (let i = 0; i < bytes.length; i++) {
        last[common + 2 * i] = TEXT[bytes[i] >> 4];
        last[common + 2 * i + 1] = TEXT[bytes[i] & 15];
      }
    } else {
      last.set(bytes, common);
    }
    this.#length = length;
    return last.subarray(0, length);
  }
}
