/**
 * Cuts a stream of bytes into lines, at LF only: node:readline also cuts at a lone CR, in some versions at U+2028, and
 * turns broken UTF-8 into replacement characters that would then be hashed.
 */
const NEWLINE = 0x0a;

/**
 * The bytes of each line, without its LF. The last one needs none. A line that grows beyond `most` bytes ends it with
 * the error that `tooLong` makes of its number and size so far.
 */
export async function* readLines(
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  most = Number.POSITIVE_INFINITY,
  tooLong?: (line: number, bytes: number) => Error,
): AsyncGenerator<Uint8Array> {
  let parts: Uint8Array[] = [];
  let size = 0;
  let line = 1;
  for await (const chunk of chunks) {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      yield Buffer.concat([...parts, chunk.subarray(start, end)]);
      parts = [];
      size = 0;
      line++;
      start = end + 1;
    }
    if (start === chunk.length) continue;
    // A copy: whoever gives the chunks may use their memory again.
    parts.push(chunk.slice(start));
    size += chunk.length - start;
    if (size > most && tooLong) throw tooLong(line, size);
  }
  if (parts.length > 0) yield Buffer.concat(parts);
}
