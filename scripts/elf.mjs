// What a 64-bit little-endian ELF file asks of the machine that loads it: libraries, symbol versions, symbols of others.
// Format: System V ABI, chapters 4 and 5; versions: Linux Standard Base, "Symbol Versioning".
const MACHINES = { 62: 'x64', 183: 'arm64' };
const DYNAMIC = 6;
const DYNSYM = 11;
const VERNEED = 0x6ffffffe;
const VERSYM = 0x6fffffff;
const NEEDED = 1n;
const WEAK = 2;

/** {machine, needed, versions, undefined: [{name, version, weak}]}. Throws where it is no such file. */
export function readElf(bytes) {
  if (bytes.readUInt32BE(0) !== 0x7f454c46 || bytes[4] !== 2 || bytes[5] !== 1) throw new Error('no 64-bit ELF file');
  const number = (at) => Number(bytes.readBigUInt64LE(at));
  const text = (at) => bytes.toString('latin1', at, bytes.indexOf(0, at));
  const sections = [];
  for (let i = 0; i < bytes.readUInt16LE(60); i++) {
    const at = number(40) + i * bytes.readUInt16LE(58);
    const [type, link] = [bytes.readUInt32LE(at + 4), bytes.readUInt32LE(at + 40)];
    sections.push({ type, link, offset: number(at + 24), size: number(at + 32) });
  }
  /** The section of a type, and where the strings are that it refers to. */
  const section = (type) => {
    const found = sections.find((one) => one.type === type);
    return found && { ...found, strings: sections[found.link].offset };
  };

  const needed = [];
  const dynamic = section(DYNAMIC);
  if (!dynamic) throw new Error('not dynamically linked');
  for (let at = dynamic.offset; at < dynamic.offset + dynamic.size; at += 16) {
    if (bytes.readBigUInt64LE(at) === NEEDED) needed.push(text(dynamic.strings + number(at + 8)));
  }

  // Each needed library has a list of versions; symbols refer to them by index.
  const versions = new Map();
  const verneed = section(VERNEED);
  for (let at = verneed?.offset, more = verneed !== undefined; more; ) {
    for (let i = 0, entry = at + bytes.readUInt32LE(at + 8); i < bytes.readUInt16LE(at + 2); i++) {
      versions.set(bytes.readUInt16LE(entry + 6), text(verneed.strings + bytes.readUInt32LE(entry + 8)));
      entry += bytes.readUInt32LE(entry + 12);
    }
    const next = bytes.readUInt32LE(at + 12);
    more = next !== 0;
    at += next;
  }

  const symbols = section(DYNSYM);
  const versym = section(VERSYM);
  const undefinedSymbols = [];
  for (let i = 1; i < symbols.size / 24; i++) {
    const at = symbols.offset + i * 24;
    if (bytes.readUInt16LE(at + 6) !== 0) continue;
    undefinedSymbols.push({
      name: text(symbols.strings + bytes.readUInt32LE(at)),
      version: versym && versions.get(bytes.readUInt16LE(versym.offset + i * 2) & 0x7fff),
      weak: bytes[at + 4] >> 4 === WEAK,
    });
  }
  const machine = MACHINES[bytes.readUInt16LE(18)] ?? 'unknown';
  return { machine, needed, versions: [...new Set(versions.values())].sort(), undefined: undefinedSymbols };
}
