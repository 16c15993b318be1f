/**
 * Tenants: separate name spaces, each with a byte quota if it has one. Where the service was given a list of tenants,
 * all others are refused; otherwise a tenant comes to be with its first put.
 */
import { integer, string } from '../core/check.js';
import { errors } from '../core/errors.js';
import type { MetadataOptions } from './options.js';
import type { EvictionOrder } from './order.js';

export const DEFAULT_TENANT = 'default';

/** Names that callers can make up must not fill the memory. */
const MAX_TENANTS = 65_536;
const MAX_NAME = 1024;

export interface Tenant {
  readonly number: number;
  readonly name: string;
  /** Infinity: none. */
  readonly quotaBytes: number;
  /** Bytes charged: all replicas of all objects, from the start of their put. */
  usedBytes: number;
  /** Readable objects, and those of them that are on a disk alone. */
  objects: number;
  diskOnly: number;
  /** What may go when the quota is reached; tenants without a quota have none. */
  order: EvictionOrder | undefined;
}

export class Tenants {
  readonly #byName = new Map<string, Tenant>();
  readonly #byNumber: Tenant[] = [];
  readonly #closed: boolean;
  readonly #newOrder: () => EvictionOrder;

  /** @throws ERR_INVALID_ARGUMENT for a policy that is none */
  constructor(policies: MetadataOptions['tenants'], newOrder: () => EvictionOrder) {
    this.#closed = policies !== undefined;
    this.#newOrder = newOrder;
    if (policies === undefined) return;
    if (typeof policies !== 'object' || policies === null) {
      throw errors.invalidArgument('tenants', policies, 'a Map or an object of tenants by name');
    }
    for (const [name, policy] of policies instanceof Map ? policies : Object.entries(policies)) {
      const argument = `tenants.${name}`;
      if (typeof policy !== 'object' || policy === null) throw errors.invalidArgument(argument, policy, 'an object');
      const { quotaBytes } = policy;
      if (quotaBytes !== undefined) integer(`${argument}.quotaBytes`, quotaBytes, 0, Number.MAX_SAFE_INTEGER);
      this.#add(tenantName(name), quotaBytes ?? Infinity);
    }
  }

  get all(): readonly Tenant[] {
    return this.#byNumber;
  }

  at(number: number): Tenant {
    return this.#byNumber[number];
  }

  /** The tenant, or undefined where it is not served, or (unless `create`) where it never put anything. */
  find(name: string, create = false): Tenant | undefined {
    const key = tenantName(name);
    const tenant = this.#byName.get(key);
    if (tenant || !create || this.#closed || this.#byNumber.length >= MAX_TENANTS) return tenant;
    return this.#add(key, Infinity);
  }

  /** Whether a tenant that `find` does not know is refused, and not merely empty. */
  get closed(): boolean {
    return this.#closed;
  }

  #add(name: string, quotaBytes: number): Tenant {
    const order = quotaBytes === Infinity ? undefined : this.#newOrder();
    const tenant = { number: this.#byNumber.length, name, quotaBytes, usedBytes: 0, objects: 0, diskOnly: 0, order };
    this.#byName.set(name, tenant);
    this.#byNumber.push(tenant);
    return tenant;
  }
}

/** Whether a text is a tenant's name: calls about many objects pass over those of no tenant. */
export function isTenantName(name: string): boolean {
  return name.length <= MAX_NAME;
}

function tenantName(name: unknown): string {
  const text = string('tenant', name);
  if (!isTenantName(text)) throw errors.invalidArgument('tenant', name, `at most ${MAX_NAME} characters long`);
  return text === '' ? DEFAULT_TENANT : text;
}
