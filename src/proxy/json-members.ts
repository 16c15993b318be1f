/**
 * Edits the top level of a JSON object without rewriting it: members that the proxy owns are cut out or added, and all
 * other bytes stay the client's. A parse and a print would round integers above 2^53 (seeds) and cost time on long prompts.
 */

const [QUOTE, BACKSLASH, COMMA, COLON] = [0x22, 0x5c, 0x2c, 0x3a];
const [OPEN_BRACE, CLOSE_BRACE, OPEN_BRACKET, CLOSE_BRACKET] = [0x7b, 0x7d, 0x5b, 0x5d];

/** A member's bytes, from its key's quote to the end of its value (and what blanks follow it). */
interface Member {
  readonly key: string;
  readonly start: number;
  readonly end: number;
}

/** Index after the string that starts at `at`. */
function afterString(json: Buffer, at: number): number {
  for (let i = at + 1; i < json.length; i++) {
    if (json[i] === BACKSLASH) i++;
    else if (json[i] === QUOTE) return i + 1;
  }
  return json.length;
}

/** The top-level members of a text that is known to be a JSON object. */
export function members(json: Buffer): Member[] {
  const found: Member[] = [];
  let depth = 0;
  let start = -1;
  let key: string | undefined;
  for (let i = 0; i < json.length; i++) {
    switch (json[i]) {
      case QUOTE: {
        const end = afterString(json, i);
        if (depth === 1 && start < 0) {
          start = i;
          key = JSON.parse(json.toString('utf8', i, end));
        }
        i = end - 1;
        break;
      }
      case OPEN_BRACE:
      case OPEN_BRACKET:
        depth++;
        break;
      case CLOSE_BRACE:
      case CLOSE_BRACKET:
        depth--;
        if (depth === 0 && key !== undefined) found.push({ key, start, end: i });
        break;
      case COMMA:
        if (depth !== 1) break;
        found.push({ key: key!, start, end: i });
        start = -1;
        key = undefined;
        break;
      case COLON:
        break;
    }
  }
  return found;
}

/** The object without the members named `without`, and with `added` (may be empty) at its end. */
export function withMembers(
  json: Buffer,
  own: readonly Member[],
  without: ReadonlySet<string>,
  added: Readonly<Record<string, unknown>>,
): Buffer {
  const parts: Buffer[] = [];
  const separate = () => parts.push(Buffer.from(parts.length === 0 ? '{' : ','));
  let from = -1;
  // Neighbours that stay are copied as one.
  for (const [i, member] of own.entries()) {
    const stays = !without.has(member.key);
    if (stays && from < 0) from = member.start;
    if (from >= 0 && (!stays || i === own.length - 1)) {
      separate();
      parts.push(json.subarray(from, stays ? member.end : own[i - 1].end));
      from = -1;
    }
  }
  const text = JSON.stringify(added).slice(1, -1);
  if (text !== '') {
    separate();
    parts.push(Buffer.from(text));
  }
  if (parts.length === 0) separate();
  parts.push(Buffer.from('}'));
  return Buffer.concat(parts);
}
