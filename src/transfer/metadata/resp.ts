/**
 * Redis' protocol, version 2 (https://redis.io/docs/latest/develop/reference/protocol-spec/), as far as GET, SET, DEL, AUTH and
 * SELECT speak it: a command is an array of strings; answers are one line, or a string with its length before it.
 */
import { errors } from '../../core/errors.js';
import { MAX_VALUE_BYTES } from './keyed.js';

export class RedisError extends Error {}

/** Null: no such key. */
export type Reply = string | number | null | RedisError;

const MAX_LINE_BYTES = 64 * 1024;
const LINE_END = '\r\n';

export function formatCommand(words: readonly string[]): string {
  const strings = words.map((word) => `$${Buffer.byteLength(word)}${LINE_END}${word}${LINE_END}`);
  return `*${words.length}${LINE_END}${strings.join('')}`;
}

/** Answers from the pieces in which they arrive. */
export class ReplyReader {
  readonly #replies: Reply[] = [];
  #chunks: Buffer[] = [];
  #bytes = 0;
  /** Below this number of bytes the next answer is not whole: nothing to look at. */
  #wanted = 1;

  /** All answers so far. Throws ERR_PROTOCOL. */
  push(chunk: Buffer): readonly Reply[] {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    while (this.#bytes >= this.#wanted) {
      const bytes = Buffer.concat(this.#chunks);
      const used = this.#read(bytes);
      this.#chunks = [bytes.subarray(used)];
      this.#bytes -= used;
      if (used === 0) break;
    }
    return this.#replies;
  }

  /** Reads the answer at the start; the bytes that it took, 0 where it is not whole. */
  #read(bytes: Buffer): number {
    const lineEnd = bytes.indexOf(LINE_END);
    if (lineEnd < 0) {
      if (bytes.length > MAX_LINE_BYTES) throw errors.protocol('an answer of Redis that does not end', bytes.length);
      this.#wanted = bytes.length + 1;
      return 0;
    }
    const line = bytes.toString('utf8', 1, lineEnd);
    const next = lineEnd + LINE_END.length;
    const take = (reply: Reply, used: number) => {
      this.#replies.push(reply);
      this.#wanted = 1;
      return used;
    };
    switch (String.fromCharCode(bytes[0])) {
      case '+':
        return take(line, next);
      case '-':
        return take(new RedisError(line), next);
      case ':':
        return take(Number(line), next);
      case '$': {
        const length = Number(line);
        if (length === -1) return take(null, next);
        if (!Number.isInteger(length) || length < 0 || length > MAX_VALUE_BYTES) {
          throw errors.protocol('an answer of Redis with a bad length', line);
        }
        const end = next + length;
        this.#wanted = end + LINE_END.length;
        if (bytes.length < this.#wanted) return 0;
        return take(bytes.toString('utf8', next, end), end + LINE_END.length);
      }
      default:
        throw errors.protocol('an answer that is not Redis', bytes.subarray(0, 32).toString());
    }
  }
}
