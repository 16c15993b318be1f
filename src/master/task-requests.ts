/**
 * Requests that an object be copied or moved. Each becomes a task of the client that lends the segment to read from; what the
 * task is to do travels as JSON, written as the stock master writes it.
 */
import { Keys, MAX_KEY_BYTES } from '../core/keys.js';
import type { Outcome, SegmentFigures, Uuid } from './api.js';
import { refuse } from './refusal.js';
import type { MetadataService } from './service.js';
import { STATUS } from './status.js';
import { TASK_TYPE, type TaskQueue } from './tasks.js';

export class TaskRequests {
  readonly #service: MetadataService;
  readonly #queue: TaskQueue;
  readonly #random: () => number;

  constructor(service: MetadataService, queue: TaskQueue, random: () => number) {
    this.#service = service;
    this.#queue = queue;
    this.#random = random;
  }

  /**
   * The id of a task that copies an object to segments, by name. -600 no target, one that is unknown, or a key that is no
   * UTF-8 (JSON cannot carry it); -704 absent; -1010 not readable now, or a target that leaves; -1401 too many tasks.
   */
  copy(key: Uint8Array, tenant: string, targets: readonly string[]): Outcome<Uuid> {
    if (targets.length === 0) return refuse(STATUS.invalidParams, 'no targets');
    const sources = this.#sources(key, tenant);
    if (!Array.isArray(sources)) return sources;
    const segments = this.#service.segments();
    const unfit = this.#unfit(segments, targets);
    if (unfit) return unfit;
    if (sources.length === 0) return refuse(STATUS.unavailable, 'no copy of it is readable now');
    const { name: source, client } = sources[Math.floor(this.#random() * sources.length)];
    return this.#submit(client, 'copy', key, { tenant_id: tenant || 'default', source, targets });
  }

  /** The same for a move. -600 also where source and target are one, and where the source has no copy. */
  move(key: Uint8Array, tenant: string, source: string, target: string): Outcome<Uuid> {
    const sources = this.#sources(key, tenant);
    if (!Array.isArray(sources)) return sources;
    if (source === target) return refuse(STATUS.invalidParams, 'source and target are one');
    const segments = this.#service.segments();
    const unfit = this.#unfit(segments, [target]);
    if (unfit) return unfit;
    if (sources.length === 0) return refuse(STATUS.unavailable, 'no copy of it is readable now');
    const from = sources.find(({ name }) => name === source);
    if (!from) return refuse(STATUS.invalidParams, `no copy in ${source}`);
    return this.#submit(from.client, 'move', key, { tenant_id: tenant || 'default', source, target });
  }

  /** The segments of an object's readable copies, and who lends them. */
  #sources(key: Uint8Array, tenant: string): { name: string; client: Uuid }[] | ReturnType<typeof refuse> {
    const isKey = key.length > 0 && key.length <= MAX_KEY_BYTES;
    const [found] = isKey ? this.#service.peek(Keys.from([key]), tenant) : [refuse(STATUS.notFound, 'absent')];
    if (!found.ok) return found.status === STATUS.notReady ? [] : found;
    const segments = new Map(this.#service.segments().map((one) => [one.id, one]));
    return found.value.replicas.flatMap(({ segment }) => segments.get(segment) ?? []);
  }

  #unfit(segments: readonly SegmentFigures[], targets: readonly string[]): Outcome<never> | undefined {
    for (const target of targets) {
      const named = segments.filter(({ name }) => name === target);
      if (named.length === 0) return refuse(STATUS.invalidParams, `no segment ${target}`);
      if (named.every(({ isLeaving }) => isLeaving)) return refuse(STATUS.unavailable, `${target} takes nothing new`);
    }
    return undefined;
  }

  #submit(
    client: Uuid,
    kind: keyof typeof TASK_TYPE,
    bytes: Uint8Array,
    { tenant_id, ...rest }: { tenant_id: string; source: string; targets?: readonly string[]; target?: string },
  ): Outcome<Uuid> {
    const key = utf8(bytes);
    if (key === undefined)
      return refuse(STATUS.invalidParams, 'a task names its key in JSON, and this one is no UTF-8');
    const payload = { tenant_id, key, ...rest, ...(kind === 'copy' ? NO_DYNAMIC_REPLICATION : {}) };
    return this.#queue.submit(client, TASK_TYPE[kind], ascii(JSON.stringify(payload)));
  }
}

/** Copies that the stock master starts by itself carry a lease; these do not. */
const NO_DYNAMIC_REPLICATION = {
  dynamic_replication_lease_id_high: 0,
  dynamic_replication_lease_id_low: 0,
  dynamic_replication_version_epoch: 0,
};

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function utf8(bytes: Uint8Array): string | undefined {
  try {
    return decoder.decode(bytes);
  } catch {
    return undefined;
  }
}

/** JSON with everything beyond ASCII escaped. */
function ascii(json: string): string {
  const escaped = (unit: string) => `\\u${unit.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0')}`;
  return json.replace(/[\u007f-\uffff]/g, escaped);
}
