// Block-hash chains: the hash of a block covers its parent's hash, so a chain is sequential, and what can be had is had
// around it. The tokens of the next four blocks are encoded ahead, so that no hash waits for stores to land. SHA-256 of
// many prompts runs four chains at once, one in each lane; a lane whose chain ends takes the next prompt, and when one
// chain is left it finishes alone. XXH3 is fast enough to be bound by the encoder: its chains run one after another.
//
// A job is one chain, a record of JOB_SIZE bytes:
//   0  u32  tokens, u32 little-endian, blocks * blockSize of them
//   4  u32  number of blocks
//   8  u32  where its hashes go, `width` bytes a block
//   12 u32  its parent hash, `width` bytes
//   16 u32  extra keys: for each block two u32, where its encoded keys start and end (equal: None); 0 for a chain
//           without any
//
// Scratch of a call: STATE_SIZE bytes (hash state, cursors of the lanes, digests of the lanes), then four message
// buffers of `stride` bytes.
import { parentOffset, writeBody, writeHead } from './encode';
import { digestPadded, pad } from './sha256';
import { digest4, start4 } from './sha256.lanes';
import { compress4 } from './sha256.rounds';
import { SECRET, xxh3_128 } from './xxh3';

const SHA256: i32 = 0;
const JOB_SIZE: usize = 20;
const STATE_SIZE: usize = 512;
/** Cursors of the lanes: what is left of each job, in a job's layout; a fifth for the job that ends alone. */
const LANES: usize = 128;
const LANE_SIZE: usize = 32;
const DIGESTS: usize = 320;
/** Offset of the message's length, later its number of compressions, from a lane's cursor. */
const LENGTH: usize = 24;

// @ts-ignore: decorator
@inline
function lane(scratch: usize, i: usize): usize {
  return scratch + LANES + i * LANE_SIZE;
}

// @ts-ignore: decorator
@inline
function buffer(scratch: usize, stride: usize, i: usize): usize {
  return scratch + STATE_SIZE + i * stride;
}

// @ts-ignore: decorator
@inline
function copyHash(to: usize, from: usize, width: usize): void {
  v128.store(to, v128.load(from));
  if (width == 32) v128.store(to, v128.load(from, 16), 16);
}

/** Encodes the next block of the job at `job` into `message`; returns its length, 0 where it fits no frame. */
// @ts-ignore: decorator
@inline
function encodeNext(job: usize, message: usize, head: usize, form: i32, blockSize: u32): usize {
  const tokens = <usize>load<u32>(job), extras = <usize>load<u32>(job, 16);
  store<u32>(job, tokens + (<usize>blockSize << 2));
  store<u32>(job, load<u32>(job, 4) - 1, 4);
  if (extras == 0) return writeBody(message, head, form, tokens, blockSize, 0, 0);
  store<u32>(job, extras + 8, 16);
  return writeBody(message, head, form, tokens, blockSize, load<u32>(extras), load<u32>(extras, 4));
}

/** Runs one job to its end. False where a block fits no frame. */
function runChain(
  job: usize, digest: i32, form: i32, blockSize: u32, head: usize, scratch: usize, stride: usize,
): bool {
  const width: usize = digest == SHA256 ? 32 : 16;
  const parentAt = parentOffset(form, width);
  let parent = <usize>load<u32>(job, 12), out = <usize>load<u32>(job, 8);
  for (let left = load<u32>(job, 4); left > 0; ) {
    const ahead = min<u32>(left, 4);
    for (let i: usize = 0; i < ahead; i++) {
      const message = buffer(scratch, stride, i), length = encodeNext(job, message, head, form, blockSize);
      if (length == 0) return false;
      store<u32>(lane(scratch, i), digest == SHA256 ? pad(message, length) : <u32>length, LENGTH);
    }
    for (let i: usize = 0; i < ahead; i++) {
      const message = buffer(scratch, stride, i), length = load<u32>(lane(scratch, i), LENGTH);
      copyHash(message + parentAt, parent, width);
      if (digest == SHA256) digestPadded(message, length, out, scratch);
      else xxh3_128(message, length, 0, SECRET, scratch, out);
      parent = out;
      out += width;
    }
    left -= ahead;
  }
  return true;
}

/** Runs jobs in the four lanes until fewer than two are at work, then the last one alone. */
function runLanes(
  jobs: usize, end: usize, form: i32, blockSize: u32, head: usize, scratch: usize, stride: usize,
): bool {
  const parentAt = parentOffset(form, 32);
  for (let i: usize = 0; i < 4; i++) store<u32>(lane(scratch, i), 0, 4);
  for (;;) {
    let busy = 0, least = u32.MAX_VALUE, most: u32 = 0;
    for (let i: usize = 0; i < 4; i++) {
      const cursor = lane(scratch, i);
      while (load<u32>(cursor, 4) == 0 && jobs < end) {
        memory.copy(cursor, jobs, JOB_SIZE);
        jobs += JOB_SIZE;
      }
      busy += i32(load<u32>(cursor, 4) > 0);
    }
    if (busy < 2) break;
    for (let i: usize = 0; i < 4; i++) {
      const cursor = lane(scratch, i);
      store<u32>(cursor, 0, LENGTH);
      if (load<u32>(cursor, 4) == 0) continue;
      const message = buffer(scratch, stride, i), length = encodeNext(cursor, message, head, form, blockSize);
      if (length == 0) return false;
      const count = pad(message, length);
      store<u32>(cursor, count, LENGTH);
      least = min(least, count);
      most = max(most, count);
      copyHash(message + parentAt, load<u32>(cursor, 12), 32);
    }
    // A lane with a shorter message (or none) computes on what lies behind it; its digest was taken in time.
    start4(scratch);
    const first = buffer(scratch, stride, 0);
    for (let done: u32 = 1; done <= most; done++) {
      compress4(scratch, first + (<usize>(done - 1) << 6), stride);
      if (done < least) continue;
      digest4(scratch, scratch + DIGESTS);
      for (let i: usize = 0; i < 4; i++) {
        const cursor = lane(scratch, i);
        if (load<u32>(cursor, LENGTH) != done) continue;
        const out = <usize>load<u32>(cursor, 8);
        copyHash(out, scratch + DIGESTS + (i << 5), 32);
        store<u32>(cursor, out, 12);
        store<u32>(cursor, out + 32, 8);
      }
    }
  }
  // The cursor of the lane that is left is a job itself; it moves out of the way of runChain's own cursors.
  const rest = lane(scratch, 4);
  for (let i: usize = 0; i < 4; i++) {
    if (load<u32>(lane(scratch, i), 4) == 0) continue;
    memory.copy(rest, lane(scratch, i), JOB_SIZE);
    return runChain(rest, 0, form, blockSize, head, scratch, stride);
  }
  return true;
}

/**
 * Hashes `count` jobs. digest: 0 SHA-256, 1 XXH3-128; form: 0 CBOR, 1 pickle. Job records are used up. Returns 0, or -1
 * where the pickle of a block would take more than one frame.
 */
export function hashChains(
  jobs: usize, count: u32, digest: i32, form: i32, blockSize: u32, scratch: usize, stride: usize,
): i32 {
  const end = jobs + <usize>count * JOB_SIZE, width: usize = digest == SHA256 ? 32 : 16;
  let head: usize = 0;
  for (let i: usize = 0; i < 4; i++) head = writeHead(buffer(scratch, stride, i), form, width, blockSize);
  if (digest == SHA256 && count > 1) return runLanes(jobs, end, form, blockSize, head, scratch, stride) ? 0 : -1;
  for (; jobs < end; jobs += JOB_SIZE) {
    if (!runChain(jobs, digest, form, blockSize, head, scratch, stride)) return -1;
  }
  return 0;
}
