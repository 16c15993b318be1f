/**
 * Frames of the control socket: a u32 (little-endian) length and that many bytes of msgpack (docs/service.md). What comes is
 * checked before the decoder sees it, as lengths may lie; numbers beyond 2^32 are numbers where they are safe ones.
 */
import { Packr } from 'msgpackr';
import { errors } from '../core/errors.js';
import { wellFormed } from '../transfer/messages.js';

export const MAX_FRAME_BYTES = 64 * 2 ** 20;
const HEADER = 4;

const packr = new Packr({
  useRecords: false,
  // A number where it is a safe one, a bigint beyond; its types do not know of it (msgpackr's unpack.js does).
  int64AsType: 'auto' as 'number',
  variableMapSize: true,
  encodeUndefinedAsNil: true,
});

/** A value as a frame. Throws ERR_PROTOCOL where it is longer than a frame may be. */
export function encodeFrame(value: unknown): Uint8Array {
  // The packer's buffer is shared and short-lived.
  const packed = packr.pack(value);
  if (packed.length > MAX_FRAME_BYTES) throw errors.protocol(`a frame of ${packed.length} bytes`, packed.length);
  const frame = Buffer.allocUnsafe(HEADER + packed.length);
  frame.writeUInt32LE(packed.length, 0);
  frame.set(packed, HEADER);
  return frame;
}

/** The value of a frame; its Uint8Arrays are views of `bytes`. Throws ERR_PROTOCOL. */
export function decodeFrame(bytes: Uint8Array): unknown {
  if (!wellFormed(bytes)) throw errors.protocol('a frame is not msgpack of plain data', bytes);
  // A view of its own: for a Buffer the decoder gives Buffers.
  return packr.unpack(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength));
}

/** Cuts a stream into frames. A frame that came in one piece is not copied. */
export class FrameReader {
  #pieces: Uint8Array[] = [];
  #length = 0;
  /** Bytes of the frame that is being gathered, its header included; unknown before the header is there. */
  #wanted = HEADER;
  #known = false;

  /** The frames that `chunk` completes. Throws ERR_PROTOCOL for one that is too long; the stream is of no use then. */
  *push(chunk: Uint8Array): Generator<Uint8Array> {
    let rest = chunk;
    for (;;) {
      if (this.#length > 0) {
        // Only as many bytes are gathered as the frame has, so that the rest is not copied with it.
        const taken = rest.subarray(0, this.#wanted - this.#length);
        rest = rest.subarray(taken.length);
        this.#pieces.push(taken);
        this.#length += taken.length;
        if (this.#length < this.#wanted) return;
        const whole = Buffer.concat(this.#pieces, this.#length);
        if (this.#known) {
          this.#reset();
          yield whole.subarray(HEADER);
        } else {
          this.#pieces = [whole];
          this.#expect(whole);
          if (this.#wanted === HEADER) {
            this.#reset();
            yield whole.subarray(HEADER);
          }
        }
        continue;
      }
      if (rest.length === 0) return;
      if (rest.length >= HEADER) {
        this.#expect(rest);
        if (rest.length >= this.#wanted) {
          const frame = rest.subarray(HEADER, this.#wanted);
          rest = rest.subarray(this.#wanted);
          this.#reset();
          yield frame;
          continue;
        }
      }
      this.#pieces.push(rest);
      this.#length = rest.length;
      return;
    }
  }

  #expect(header: Uint8Array): void {
    const length = new DataView(header.buffer, header.byteOffset).getUint32(0, true);
    if (length > MAX_FRAME_BYTES) {
      throw errors.protocol(`a frame of ${length} bytes, at most ${MAX_FRAME_BYTES} are taken`, length);
    }
    this.#wanted = HEADER + length;
    this.#known = true;
  }

  #reset(): void {
    this.#pieces = [];
    this.#length = 0;
    this.#wanted = HEADER;
    this.#known = false;
  }
}
