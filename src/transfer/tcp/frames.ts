/**
 * Frames on a connection (docs/transfer.md): each side first sends a preamble, then frames of a header and a payload. All
 * numbers are little-endian.
 *
 *   preamble  magic "MKTX" · version u16 = 1 · header size u16 = 32
 *   header     0  payload bytes                u32
 *              4  type                         u8
 *              5  flags                        u8
 *              6  zero                         u16
 *              8  id of the request            u32   given by whoever opened it
 *             12  value                        u32   of a piece of data: its number; of read and write: deadline in ms
 *             16  CRC-64 of the payload        u64   zero where the payload is not summed
 *             24  CRC-64 of the 24 bytes above u64
 *
 * So no byte that steers is taken unchecked, and a payload that is not summed is one whose move was asked for without.
 */
import { crc64, crc64Into } from '../../core/checksum.js';
import { errors } from '../../core/errors.js';

export const VERSION = 1;
export const PREAMBLE_BYTES = 8;
export const HEADER_BYTES = 32;
/** The most bytes of a move in one frame: what a small message waits for at most, several times over. */
export const PIECE_BYTES = 256 * 1024;
/** The most records in one read or write frame; larger batches travel in parts. */
export const PART_RECORDS = 16 * 1024;
/** Moves and calls that one side may have under way on a connection; more are refused. */
export const MAX_MOVES = 8192;
export const MAX_CALLS = 65_536;

export const FRAME = {
  /** Generation, address, limits: the first frame of each side. */
  hello: 1,
  /** Sent when nothing else was for a while. */
  heartbeat: 2,
  /** The sender closes the connection on purpose. */
  goodbye: 3,
  /** Service name and message; answered by answer or failure. */
  call: 4,
  answer: 5,
  /** The end of a request that failed: code, message, argument. */
  failure: 6,
  /** The opener gives up; answered by failure unless the end is on its way already. */
  cancel: 7,
  /** Descriptors to read by; answered by data and done, or failure. */
  read: 8,
  readData: 9,
  /** Descriptors to write by, followed by data; answered by done or failure. */
  write: 10,
  writeData: 11,
  done: 12,
} as const;

/** Flag: this frame's payload is summed. Control frames always are. */
export const SUMS = 1;
/** Flag of read and write: every piece of the data will be summed. */
export const SUM_DATA = 2;

export interface Header {
  length: number;
  type: number;
  flags: number;
  id: number;
  value: number;
  /** CRC-64 of the payload. */
  sum: bigint;
}

export function preamble(): Uint8Array {
  const bytes = new Uint8Array(PREAMBLE_BYTES);
  bytes.set([0x4d, 0x4b, 0x54, 0x58]);
  const view = new DataView(bytes.buffer);
  view.setUint16(4, VERSION, true);
  view.setUint16(6, HEADER_BYTES, true);
  return bytes;
}

/** Throws ERR_PROTOCOL. */
export function checkPreamble(bytes: Uint8Array): void {
  const ours = preamble();
  const differs = (at: number) => bytes[at] !== ours[at];
  if ([0, 1, 2, 3].some(differs)) throw errors.protocol('this is no mooncake-ts transfer', bytes.slice());
  if ([4, 5, 6, 7].some(differs)) {
    throw errors.protocol(`version ${bytes[4] | (bytes[5] << 8)} where this side speaks ${VERSION}`, bytes.slice());
  }
}

/** Writes a header to the first 32 bytes of `bytes`. */
export function writeHeader(bytes: Uint8Array, header: Header): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES);
  view.setUint32(0, header.length, true);
  view.setUint8(4, header.type);
  view.setUint8(5, header.flags);
  view.setUint16(6, 0, true);
  view.setUint32(8, header.id, true);
  view.setUint32(12, header.value, true);
  view.setBigUint64(16, header.sum, true);
  crc64Into(bytes.subarray(0, 24), bytes, 24);
}

/** Throws ERR_PROTOCOL where the header's own checksum does not match. */
export function readHeader(bytes: Uint8Array): Header {
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES);
  if (crc64(bytes.subarray(0, 24)) !== view.getBigUint64(24, true)) {
    throw errors.protocol("a frame header's checksum does not match", bytes.slice());
  }
  return {
    length: view.getUint32(0, true),
    type: view.getUint8(4),
    flags: view.getUint8(5),
    id: view.getUint32(8, true),
    value: view.getUint32(12, true),
    sum: view.getBigUint64(16, true),
  };
}

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true });

/** Payload of a call: bytes of the service's name u8, the name, the packed message. */
export function callPayload(service: string, message: Uint8Array): Uint8Array {
  const name = encoder.encode(service);
  if (name.length > 255) throw errors.invalidArgument('service', service, 'at most 255 bytes long');
  const payload = new Uint8Array(1 + name.length + message.length);
  payload[0] = name.length;
  payload.set(name, 1);
  payload.set(message, 1 + name.length);
  return payload;
}

/** Throws ERR_PROTOCOL. */
export function readCall(payload: Uint8Array): { service: string; message: Uint8Array } {
  const end = 1 + (payload[0] ?? 0);
  if (payload.length < end) throw errors.protocol('a call shorter than its name', payload);
  try {
    return { service: decoder.decode(payload.subarray(1, end)), message: payload.subarray(end) };
  } catch {
    throw errors.protocol('a service name that is not UTF-8', payload);
  }
}
