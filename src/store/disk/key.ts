/** Keys of the tier, and of the requests of those who read from a disk: tenant, 0, key (wheel 0.3.13.post1, observed). */
const encoder = new TextEncoder();
const decoder = new TextDecoder();

export function diskKey(tenant: string, key: Uint8Array): Uint8Array {
  const name = encoder.encode(tenant);
  const joined = new Uint8Array(name.length + 1 + key.length);
  joined.set(name);
  joined.set(key, name.length + 1);
  return joined;
}

export function splitKey(joined: Uint8Array): { tenant: string; key: Uint8Array } {
  const at = joined.indexOf(0);
  return { tenant: decoder.decode(joined.subarray(0, at)), key: joined.slice(at + 1) };
}
