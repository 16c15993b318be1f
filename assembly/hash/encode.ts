// The message that vLLM hashes for a block: the tuple (parent hash, tuple of tokens, extra keys or None), serialized by
// cbor2 in canonical form (RFC 8949) or by CPython's pickle in protocol 5.
//
//   CBOR     83 | 58 20 parent | array header | tokens | extra keys or f6
//   pickle   80 05 | 95 frame length u64 | 43 length parent 94 | 28 tokens 74 94 | extra keys or 4e | 87 94 2e
//
// What comes before the tokens is the same for every block of a call (but for the parent and the frame length, which
// are patched), so it is written once into each message buffer. Extra keys arrive encoded (src/core/hash/encode.ts).
// A message buffer needs HEAD_ROOM + TOKEN_ROOM bytes a token + the extra keys + TAIL_ROOM.

export const CBOR: i32 = 0;
export const PICKLE: i32 = 1;
/** A pickle of this many bytes or more would be cut into several frames. */
const FRAME_TARGET: usize = 65536;

/** Where the parent's bytes stand in a message. */
// @ts-ignore: decorator
@inline
export function parentOffset(form: i32, width: usize): usize {
  return form == PICKLE ? 13 : width > 23 ? 3 : 2;
}

/** Writes what precedes the tokens; returns its length. */
export function writeHead(message: usize, form: i32, width: usize, blockSize: u32): usize {
  let p = message;
  if (form == PICKLE) {
    store<u16>(p, 0x0580); // PROTO 5
    store<u8>(p, 0x95, 2); // FRAME
    store<u8>(p, 0x43, 11); // SHORT_BINBYTES
    store<u8>(p, width, 12);
    p += 13 + width;
    store<u8>(p++, 0x94); // MEMOIZE
    if (blockSize > 3) store<u8>(p++, 0x28); // MARK; shorter tuples have opcodes of their own
    return p - message;
  }
  store<u8>(p++, 0x83);
  if (width > 23) {
    store<u16>(p, 0x2058);
    p += 2;
  } else {
    store<u8>(p++, 0x40 | width);
  }
  p += width;
  if (blockSize < 24) {
    store<u8>(p++, 0x80 | blockSize);
  } else if (blockSize < 0x100) {
    store<u8>(p, 0x98);
    store<u8>(p, blockSize, 1);
    p += 2;
  } else if (blockSize < 0x10000) {
    store<u8>(p, 0x99);
    store<u16>(p, bswap(<u16>blockSize), 1);
    p += 3;
  } else {
    store<u8>(p, 0x9a);
    store<u32>(p, bswap(blockSize), 1);
    p += 5;
  }
  return p - message;
}

/** An unsigned integer in the shortest form. Writes up to seven bytes beyond it. */
// @ts-ignore: decorator
@inline
function cborToken(token: u32, p: usize): usize {
  if (token > 0xff) {
    // Two- and four-byte values without a branch: prompts mix them at random.
    const wide = token > 0xffff, value = <u64>((rotl(token, 8) & 0x00ff00ff) | (rotr(token, 8) & 0xff00ff00));
    store<u64>(p, select<u64>((value << 8) | 0x1a, ((value >>> 8) & 0xffff00) | 0x19, wide));
    return p + select<usize>(5, 3, wide);
  }
  if (token > 23) {
    store<u16>(p, <u16>((token << 8) | 0x18));
    return p + 2;
  }
  store<u8>(p, token);
  return p + 1;
}

/** BININT1, BININT2, BININT or, as those are signed or short, LONG1. Writes up to seven bytes beyond it. */
// @ts-ignore: decorator
@inline
function pickleToken(token: u32, p: usize): usize {
  if (token > 0xff) {
    if (<i32>token < 0) {
      store<u64>(p, (<u64>token << 16) | 0x058a);
      return p + 7;
    }
    const wide = token > 0xffff;
    store<u64>(p, (<u64>token << 8) | select<u64>(0x4a, 0x4d, wide));
    return p + select<usize>(5, 3, wide);
  }
  store<u16>(p, <u16>((token << 8) | 0x4b));
  return p + 2;
}

/**
 * Writes tokens, extra keys (from `extra` to `extraEnd`; none where equal) and the end of the message, after a head of
 * `head` bytes. Returns the length of the message, or 0 where its pickle would not fit one frame.
 */
// @ts-ignore: decorator
@inline
export function writeBody(
  message: usize, head: usize, form: i32, tokens: usize, blockSize: u32, extra: usize, extraEnd: usize,
): usize {
  let p = message + head;
  const end = tokens + (<usize>blockSize << 2), extraSize = extraEnd - extra;
  if (form == CBOR) {
    for (; tokens < end; tokens += 4) p = cborToken(load<u32>(tokens), p);
    if (extraSize == 0) {
      store<u8>(p, 0xf6);
      return p + 1 - message;
    }
    memory.copy(p, extra, extraSize);
    return p + extraSize - message;
  }
  for (; tokens < end; tokens += 4) p = pickleToken(load<u32>(tokens), p);
  store<u8>(p, blockSize > 3 ? 0x74 : 0x84 + blockSize); // TUPLE, TUPLE1 to TUPLE3
  store<u8>(p, 0x94, 1);
  p += 2;
  if (extraSize == 0) {
    store<u8>(p++, 0x4e);
  } else {
    memory.copy(p, extra, extraSize);
    p += extraSize;
  }
  store<u32>(p, 0x2e9487); // TUPLE3, MEMOIZE, STOP
  const frame = p + 3 - message - 11;
  store<u64>(message, frame, 3);
  return frame < FRAME_TARGET ? frame + 11 : 0;
}
