/**
 * Under which names an engine's blocks lie in the store, so that nobody ever reads bytes that mean something else.
 *
 * strict (the default): the name contains a digest of all that the bytes depend on: model, hash algorithm and seed, block
 * size, kind, layers, heads, element types, order of the cells, and the slice of a tensor-parallel rank. What does not fit
 * is not found.
 *
 *     [prefix@]model@strict:DIGEST@heads:FROM-TO/HEADS@group:G@HASH
 *
 * stock: the keys of vLLM's own MooncakeStoreConnector, byte for byte (KeyMetadata of its store/data.py, vLLM 0.32), so
 * that both share objects. They say little, so one companion object per model holds the fingerprint in plain JSON and is
 * compared before anything else is done.
 *
 *     [prefix@]model@tp_rank:R@pcp0@dcp0@pp_rank:P@group:G@HASH       [prefix@]model@mooncake-ts:fingerprint
 */
import { oneOf, string } from '../core/check.js';
import { digest, noneHash } from '../core/hash.js';
import { toHex } from '../core/hex.js';
import type { EngineInfo } from './api.js';
import type { ObjectLayout } from './store-objects.js';

export type Integrity = 'strict' | 'stock';

const encoder = new TextEncoder();

/** What two engines must agree on to share blocks, by field name; every value is a string, a number or null. */
export type Fingerprint = Readonly<Record<string, string | number | null>>;

export class Namespace {
  readonly integrity: Integrity;
  /** `[prefix@]model`, with which every key begins. */
  readonly root: string;
  /** NONE_HASH in hex: two engines whose values differ hash no block alike. */
  readonly noneHash: string;
  readonly #engine: EngineInfo;

  constructor(engine: EngineInfo, integrity: Integrity, prefix: string) {
    this.integrity = oneOf('integrity', integrity, ['strict', 'stock']);
    const model = string('engine.model', engine.model);
    // vLLM names a model by the last part of its path.
    const name = integrity === 'stock' ? (model.replace(/\/+$/, '').split('/').at(-1) as string) : model;
    this.root = string('prefix', prefix) === '' ? name : `${prefix}@${name}`;
    this.noneHash = toHex(noneHash(engine.hash.algorithm, engine.hash.seed));
    this.#engine = engine;
  }

  /** What goes before `@HASH` in the keys of a rank's objects of a group. */
  keyPrefix(objects: ObjectLayout, group: number): Uint8Array {
    return encoder.encode(this.integrity === 'stock' ? this.#stock(objects, group) : this.#strict(objects, group));
  }

  /** A regular expression that finds the blocks of this model, and no companion object. */
  get pattern(): string {
    const root = this.root.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
    return `^${root}@${this.integrity === 'stock' ? 'tp_rank' : 'strict'}:`;
  }

  /** Key of the companion object of a pipeline stage (stages hold different layers). */
  companionKey({ layout }: ObjectLayout): string {
    const { rank, size } = layout.pipelineParallel;
    return `${this.root}@mooncake-ts:fingerprint${size > 1 ? `@pp_rank:${rank}` : ''}`;
  }

  /** What must agree in a stock namespace, whose keys tell ranks apart but not deployments. */
  fingerprint(objects: ObjectLayout): Fingerprint {
    const { layout, forms, bytes } = objects;
    const fields: Record<string, string | number | null> = {
      version: 1,
      model: this.#engine.model,
      ...this.#hash(),
      tensorParallelSize: layout.tensorParallel.size,
      pipelineParallelSize: layout.pipelineParallel.size,
      groups: layout.groups.length,
    };
    for (const [index, group] of layout.groups.entries()) {
      const at = `groups[${index}].`;
      fields[`${at}kind`] = group.kind;
      fields[`${at}blockSize`] = group.blockSize;
      fields[`${at}window`] = group.window;
      fields[`${at}heads`] = group.heads;
      fields[`${at}form`] = forms[index];
      fields[`${at}objectBytes`] = bytes[index];
      for (const [name, { dtype, elements }] of group.tensors)
        fields[`${at}tensors.${name}`] = `${dtype} x ${elements}`;
    }
    return fields;
  }

  #hash() {
    const { algorithm = 'sha256_cbor', blockSize } = this.#engine.hash;
    return { hashAlgorithm: algorithm, hashBlockSize: blockSize, noneHash: this.noneHash };
  }

  #strict({ layout, forms }: ObjectLayout, index: number): string {
    const group = layout.groups[index];
    const said = JSON.stringify({
      version: 1,
      model: this.#engine.model,
      ...this.#hash(),
      group: index,
      form: forms[index],
      layout: JSON.parse(layout.fingerprint())[index],
    });
    const name = toHex(digest('sha256', encoder.encode(said)).subarray(0, 16));
    const { from, to } = group.headRange;
    const heads = group.heads > 0 ? `@heads:${from}-${to}/${group.heads}` : '';
    return `${this.root}@strict:${name}${heads}@group:${index}`;
  }

  #stock({ layout }: ObjectLayout, index: number): string {
    const { kind, heads } = layout.groups[index];
    const { rank, size } = layout.tensorParallel;
    // Ranks that hold the same share one key, numbered by what they hold (_spec_tp_replication_factor of its worker.py).
    const copies = kind === 'state' ? 1 : heads === 0 ? size : Math.max(1, Math.floor(size / heads));
    return `${this.root}@tp_rank:${Math.floor(rank / copies)}@pcp0@dcp0@pp_rank:${layout.pipelineParallel.rank}@group:${index}`;
  }
}
