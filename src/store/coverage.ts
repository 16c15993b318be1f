/**
 * Which bytes of an object have been moved, and their CRC-64. Pieces may come in any order: those that continue a run
 * continue its sum, and at the end the sums of the runs are combined in order. An object is whole when its runs meet.
 */
import { crc64Combine } from '../core/checksum.js';

/** Bytes `start` to `end` of an object; `crc` is the CRC-64 of them alone. */
export interface Run {
  readonly start: number;
  end: number;
  crc: bigint;
}

export class Coverage {
  /** In order of their bytes; two may meet, none overlap. */
  readonly #runs: Run[] = [];
  #bytes = 0;

  /** Bytes moved so far. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * The run that takes a piece: its `crc`, 0n in a new run, is to be continued over the piece. Undefined where bytes of the
   * piece are covered already: what was written twice has no sum.
   */
  add(offset: number, length: number): Run | undefined {
    const runs = this.#runs;
    let at = runs.length;
    while (at > 0 && runs[at - 1].end > offset) at--;
    if (at < runs.length && runs[at].start < offset + length) return undefined;
    this.#bytes += length;
    if (at > 0 && runs[at - 1].end === offset) {
      runs[at - 1].end += length;
      return runs[at - 1];
    }
    const run: Run = { start: offset, end: offset + length, crc: 0n };
    runs.splice(at, 0, run);
    return run;
  }

  /** CRC-64 over all runs in order: that of the object, when `bytes` is its size. */
  digest(): bigint {
    let crc = 0n;
    for (const [i, run] of this.#runs.entries()) {
      crc = i === 0 ? run.crc : crc64Combine(crc, run.crc, run.end - run.start);
    }
    return crc;
  }
}
