/**
 * The check before a namespace is used. Strict keys say themselves what their bytes mean. Stock keys do not: a companion
 * object beside them holds the fingerprint of whoever came first, and who does not fit is refused, by name of the field.
 */

import { allocateDescriptors, DESCRIPTOR_BYTES, Descriptors } from '../core/descriptors.js';
import { errors, MooncakeError, show } from '../core/errors.js';
import { Keys } from '../core/keys.js';
import { STATUS } from '../master/status.js';
import { OBJECTS, type ObjectStore } from '../store/api.js';
import type { CallLimits } from '../transfer/transfer.js';
import { blockKeys } from './blocks.js';
import type { Fingerprint } from './namespace.js';
import type { NamespaceClaim } from './store-metadata.js';

interface AttachLimits extends CallLimits {
  tenant?: string;
}

/** Bytes of a companion object, at most; one group takes about 200. */
const MAX_COMPANION = 1 << 20;

/** Throws ERR_NAMESPACE where the claim must not use its namespace; another error where that cannot be found out. */
export async function checkNamespace(store: ObjectStore, claim: NamespaceClaim, limits: AttachLimits): Promise<void> {
  if (claim.integrity !== 'stock') return;
  const keys = Keys.from([claim.companionKey]);
  const own = new TextEncoder().encode(JSON.stringify(claim.fingerprint));
  // Whoever comes first writes it; who comes second at the same time finds it on the second look.
  for (let attempt = 0; attempt < 3; attempt++) {
    const theirs = await readObject(store, keys, limits);
    if (theirs !== undefined) return compare(claim, theirs);
    if (await writeObject(store, keys, own, limits)) return;
  }
  throw errors.namespace(
    'companion',
    claim.companionKey,
    `the companion object ${show(claim.companionKey)} can be neither read nor written`,
  );
}

/**
 * For a claim that nobody chose: throws ERR_NAMESPACE when the block with this hash lies in the store under vLLM's own key,
 * and no companion says that it was one of ours who wrote it. Two deployments that think they share would not meet.
 */
export async function checkNeighbours(
  store: ObjectStore,
  claim: NamespaceClaim,
  hash: Uint8Array,
  limits: AttachLimits,
): Promise<void> {
  const stockKey = blockKeys([claim.stockPrefix], hash, hash.length);
  const [found, known] = await store.batchIsExist(Keys.from([stockKey.at(0), claim.companionKey]), limits);
  if (found !== 1 || known === 1) return;
  throw errors.namespace(
    'integrity',
    undefined,
    `the store has blocks of ${show(claim.model)} under the keys of vLLM's own connector, and nobody said how to use them: ` +
      "set integrity: 'stock' to share them (bytes without a checksum are served), or 'strict' to keep apart from them",
  );
}

function compare({ fingerprint, companionKey }: NamespaceClaim, bytes: Uint8Array): void {
  let theirs: Fingerprint;
  try {
    theirs = JSON.parse(new TextDecoder().decode(bytes));
  } catch (cause) {
    throw new MooncakeError('ERR_NAMESPACE', `companion: ${show(companionKey)} is no JSON`, {
      argument: 'companion',
      cause,
    });
  }
  for (const field of new Set([...Object.keys(theirs), ...Object.keys(fingerprint)])) {
    const [other, own] = [theirs[field] ?? null, fingerprint[field] ?? null];
    if (other === own) continue;
    throw errors.namespace(field, own, `the namespace was written with ${show(other)}, this engine has ${show(own)}`);
  }
}

/** One copy between an object and a segment, from byte 0 on. */
function oneCopy(sourceSegment: number, destinationSegment: number, length: number): Descriptors {
  const bytes = allocateDescriptors(1);
  const view = new DataView(bytes.buffer, DESCRIPTOR_BYTES);
  view.setUint32(0, sourceSegment, true);
  view.setUint32(4, destinationSegment, true);
  view.setBigUint64(24, BigInt(length), true);
  return new Descriptors(bytes);
}

async function readObject(store: ObjectStore, keys: Keys, limits: AttachLimits): Promise<Uint8Array | undefined> {
  const batch = await store.openGet(keys, { ...limits, stride: MAX_COMPANION });
  const size = batch.sizes[0];
  if (batch.statuses[0] !== STATUS.ok || size > MAX_COMPANION) {
    await batch.finish();
    return undefined;
  }
  const memory = new Uint8Array(size);
  const segment = store.transfer.register(memory, { access: 'read' });
  try {
    await batch.read(oneCopy(OBJECTS, segment, size), limits);
    const [status] = await batch.finish();
    return status === STATUS.ok ? memory : undefined;
  } finally {
    await store.transfer.unregister(segment);
  }
}

/** False where it exists already. */
async function writeObject(store: ObjectStore, keys: Keys, value: Uint8Array, limits: AttachLimits): Promise<boolean> {
  // Never evicted: without it, the next one with other settings would take the namespace over.
  const batch = await store.openPut(keys, value.length, { ...limits, stride: value.length, hardPin: true });
  const segment = store.transfer.register(value, { access: 'read' });
  try {
    if (batch.statuses[0] === STATUS.ok) await batch.write(oneCopy(segment, OBJECTS, value.length), limits);
    const [status] = await batch.commit();
    if (status === STATUS.ok) return true;
    if (status === STATUS.exists) return false;
    throw errors.namespace('companion', status, `the companion object cannot be written (status ${status})`);
  } catch (error) {
    await batch.abort();
    throw error;
  } finally {
    await store.transfer.unregister(segment);
  }
}
