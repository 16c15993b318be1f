/**
 * Cuts a stream of bytes into lines, at LF only: node:readline also cuts at a lone CR, in some versions at U+2028, and
 * turns broken UTF-8 into replacement characters that would then be hashed.
 */
const NEWLINE = 0x0a;

/** The bytes of each line, without its LF. The last one needs none. */
export async function* readLines(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let parts: Uint8Array[] = [];
  for await (const chunk of chunks) {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      yield Buffer.concat([...parts, chunk.subarray(start, end)]);
      parts = [];
      start = end + 1;
    }
    if (start < chunk.length) parts.push(chunk.subarray(start));
  }
  if (parts.length > 0) yield Buffer.concat(parts);
}
