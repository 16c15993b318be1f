/**
 * Frames: what is written and made durable in one piece, and what is either read whole or not at all. Log and snapshot
 * files are frames and nothing else; little-endian:
 *
 *     u32  magic "MTSF"    u32  bytes of payload    u64  CRC-64 of all that follows and, in front of it, of those eight bytes
 *     u32  number of the file    u32  place of the frame in it    payload: records
 *
 * A frame names its file and its place, so a block that a disk kept from an earlier use is never taken for one.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { crc64 } from '../../core/checksum.js';
import { ByteReader } from './bytes.js';

const MAGIC = 0x4653544d;
const SUM = 8;
const FILE = 16;
const PLACE = 20;
export const FRAME_BYTES = 24;
/** No frame is larger: more at once is written as several. */
export const MAX_FRAME = 2 ** 27;
const CHUNK = 2 ** 20;

/** Fills in the header of a frame, whose payload lies behind FRAME_BYTES of room for it. */
export function sealFrame(frame: Buffer, file: number, place: number): void {
  frame.writeUInt32LE(MAGIC, 0);
  frame.writeUInt32LE(frame.length - FRAME_BYTES, 4);
  frame.writeUInt32LE(file, FILE);
  frame.writeUInt32LE(place, PLACE);
  frame.writeBigUInt64LE(sum(frame), SUM);
}

function sum(frame: Buffer): bigint {
  return crc64(frame.subarray(FILE), crc64(frame.subarray(0, SUM)));
}

export interface FileEnd {
  /** Bytes up to the end of the last good frame, and of the file. */
  good: number;
  size: number;
  /** Good frames. */
  frames: number;
  /** A good frame lies behind a bad one: what is missing between them was durable once. */
  damaged: boolean;
}

/** Payload length of the frame that begins at `at`, or -1 where none does; undefined where more bytes are needed to say. */
function frameAt(bytes: Buffer, at: number, file: number, place: number | undefined): number | undefined {
  if (bytes.length - at < FRAME_BYTES) return undefined;
  if (bytes.readUInt32LE(at) !== MAGIC || bytes.readUInt32LE(at + FILE) !== file) return -1;
  if (place !== undefined && bytes.readUInt32LE(at + PLACE) !== place) return -1;
  const length = bytes.readUInt32LE(at + 4);
  if (length > MAX_FRAME) return -1;
  const end = at + FRAME_BYTES + length;
  if (bytes.length < end) return undefined;
  return sum(bytes.subarray(at, end)) === bytes.readBigUInt64LE(at + SUM) ? length : -1;
}

/** Reads the frames of a file one after the other, up to its end or the first that is none. */
export async function readFrames(
  path: string,
  number: number,
  onFrame: (records: ByteReader) => void,
): Promise<FileEnd> {
  const file = await open(path, 'r');
  try {
    const { size } = await file.stat();
    let bytes = Buffer.alloc(0);
    let [good, read, place] = [0, 0, 0];
    for (;;) {
      let at = 0;
      for (;;) {
        const length = frameAt(bytes, at, number, place);
        if (length === -1) return { good, size, frames: place, damaged: await goesOn(file, good + 1, size, number) };
        if (length === undefined) break;
        onFrame(new ByteReader(bytes.subarray(at + FRAME_BYTES, at + FRAME_BYTES + length)));
        place++;
        at += FRAME_BYTES + length;
        good += FRAME_BYTES + length;
      }
      if (read === size)
        return { good, size, frames: place, damaged: good < size && (await goesOn(file, good + 1, size, number)) };
      const more = Buffer.allocUnsafe(Math.min(size - read, Math.max(CHUNK, missing(bytes.subarray(at)))));
      const { bytesRead } = await file.read(more, 0, more.length, read);
      if (bytesRead === 0) return { good, size: read, frames: place, damaged: false };
      read += bytesRead;
      bytes = Buffer.concat([bytes.subarray(at), more.subarray(0, bytesRead)]);
    }
  } finally {
    await file.close();
  }
}

/** Bytes that the frame at the start of what was read still lacks. */
function missing(bytes: Buffer): number {
  if (bytes.length < FRAME_BYTES) return 0;
  return Math.min(bytes.readUInt32LE(4), MAX_FRAME) + FRAME_BYTES - bytes.length;
}

/** Whether a good frame of the file begins anywhere from `from` on. */
async function goesOn(file: FileHandle, from: number, size: number, number: number): Promise<boolean> {
  const magic = Buffer.alloc(4);
  magic.writeUInt32LE(MAGIC, 0);
  const chunk = Buffer.allocUnsafe(CHUNK);
  for (let start = from; start < size; start += CHUNK - 3) {
    const { bytesRead } = await file.read(chunk, 0, CHUNK, start);
    const bytes = chunk.subarray(0, bytesRead);
    for (let at = bytes.indexOf(magic); at >= 0; at = bytes.indexOf(magic, at + 1)) {
      const header = Buffer.alloc(FRAME_BYTES);
      await file.read(header, 0, FRAME_BYTES, start + at);
      const whole = Buffer.alloc(Math.min(header.readUInt32LE(4), MAX_FRAME) + FRAME_BYTES);
      const { bytesRead: got } = await file.read(whole, 0, whole.length, start + at);
      if (frameAt(whole.subarray(0, got), 0, number, undefined)! >= 0) return true;
    }
  }
  return false;
}
