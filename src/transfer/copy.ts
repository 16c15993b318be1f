/** Copies between memories of this process, checked as asked. */
import type { Descriptors } from '../core/descriptors.js';
import { errors, type MooncakeError } from '../core/errors.js';
import { type Limits, watch } from './limits.js';
import { type Ranges, totalBytes } from './ranges.js';
import { hold } from './segments.js';
import { inSlices } from './slices.js';
import type { MoveReport } from './transfer.js';

/** Bytes copied in one step: well under a millisecond, also where both sides are summed. */
const STEP_BYTES = 256 * 1024;

function copyPiece(from: Uint8Array, to: Uint8Array, verify: boolean): void {
  to.set(from);
  // Both are at hand here, so the bytes themselves are compared: more than any sum of them says.
  if (verify && Buffer.compare(from, to) !== 0) throw errors.corrupt('copied bytes');
}

export interface CopyOptions {
  limits: Limits;
  verify: boolean;
  /** Told how to end the copy early; called before the copy starts. */
  onStart?: (end: (error: MooncakeError) => void) => void;
  onEnd?: () => void;
}

/**
 * Copies every source range to the destination range of the same record. After a rejection nothing is written any more.
 */
export function copyRanges(
  descriptors: Descriptors,
  source: Ranges,
  destination: Ranges,
  { limits, verify, onStart, onEnd }: CopyOptions,
): Promise<MoveReport> {
  const started = performance.now();
  const bytes = totalBytes(descriptors);
  const release = hold([...source.segments, ...destination.segments]);
  const reading = source.cursor();
  const writing = destination.cursor();
  return new Promise((resolve, reject) => {
    let ended = false;
    const end = (error?: unknown) => {
      if (ended) return;
      ended = true;
      stop();
      release();
      onEnd?.();
      if (error !== undefined) reject(error);
      else resolve({ bytes, verifiedBytes: verify ? bytes : 0, milliseconds: performance.now() - started });
    };
    const stop = watch('the copy', limits, end);
    onStart?.(end);
    inSlices(() => {
      if (ended) return true;
      try {
        const from = reading.next(STEP_BYTES);
        if (from) copyPiece(from, writing.next(from.length)!, verify);
        else end();
      } catch (error) {
        end(error);
      }
      return ended;
    });
  });
}
