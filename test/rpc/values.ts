// Random struct_pack payloads for a type literal: a reader of literals and a writer of values of its own, which knows the
// format from its description and nothing of the schemas.
const FIXED: Record<number, number> = { 1: 4, 2: 4, 3: 8, 4: 8, 5: 1, 6: 1, 7: 2, 8: 2, 11: 1, 12: 1, 17: 4, 18: 8 };
const END = 0xff;

/** mulberry32: the same payload again for another width of its lengths. */
function random(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

/** Where the type that begins at `at` ends. */
function skip(literal: Uint8Array, at: number): number {
  const id = literal[at];
  if (id === 0x80) return at + 2;
  if (id === 0x84 || id === 0x85) return skip(literal, at + 1);
  if (id === 0x82 || id === 0x87) return skip(literal, skip(literal, at + 1));
  if (id !== 0xfd && id !== 0x86) return at + 1;
  at++;
  // Above 0x88: an alignment behind the fields of a trivially copyable class.
  while (literal[at] !== END) at = literal[at] > 0x88 && literal[at] < 0xfa ? at + 1 : skip(literal, at);
  return at + 1;
}

function parts(literal: Uint8Array, at: number): number[] {
  const found: number[] = [];
  for (at++; literal[at] !== END; ) {
    if (literal[at] > 0x88 && literal[at] < 0xfa) {
      at++;
      continue;
    }
    found.push(at);
    at = skip(literal, at);
  }
  return found;
}

/** A payload with lengths of 1, 2, 4 or 8 bytes (`width` 0 to 3); the same seed gives the same value. */
export function payload(literal: Uint8Array, seed: number, width: number): Buffer {
  const next = random(seed);
  const out: number[] = [];
  let serial = 0;
  const length = (value: number) => {
    for (let i = 0; i < 1 << width; i++) out.push(i < 4 ? (value >>> (8 * i)) & 255 : 0);
  };
  const write = (at: number): void => {
    const id = literal[at];
    if (id === 0xfa) return;
    if (id === 0x0b) {
      out.push(next(2));
    } else if (FIXED[id]) {
      for (let i = 0; i < FIXED[id]; i++) out.push(next(256));
    } else if (id === 0x80) {
      // ASCII, and never the same twice: keys of maps are unique.
      const text = `${serial++}${'.'.repeat(next(20))}`;
      length(text.length);
      for (const c of text) out.push(c.charCodeAt(0));
    } else if (id === 0x84) {
      const count = next(4);
      length(count);
      for (let i = 0; i < count; i++) write(at + 1);
    } else if (id === 0x82) {
      const count = next(3);
      length(count);
      for (let i = 0; i < count; i++) {
        write(at + 1);
        write(skip(literal, at + 1));
      }
    } else if (id === 0x85) {
      const present = next(2);
      out.push(present);
      if (present) write(at + 1);
    } else if (id === 0x87) {
      const ok = next(2);
      out.push(ok);
      write(ok ? at + 1 : skip(literal, at + 1));
      // Mooncake's errors are below 0, and an array of outcomes has no other way of saying so.
      if (!ok) out.push((out.pop() as number) | 0x80);
    } else if (id === 0x86) {
      const all = parts(literal, at);
      const index = next(all.length);
      out.push(index);
      write(all[index]);
    } else if (id === 0xfd) {
      for (const part of parts(literal, at)) write(part);
    } else {
      throw new Error(`type ${id} at ${at}`);
    }
  };
  write(0);
  return Buffer.from(out);
}
