/**
 * A transfer that also takes a bootstrap server's URL for an address: what routers made for vLLM's own connector pass on as
 * `remote_bootstrap_addr`. The server is asked which transfer its engines are reached by.
 */

import type { Descriptors } from '../core/descriptors.js';
import { errors, MooncakeError } from '../core/errors.js';
import type { DeviceMemory } from '../transfer/engine/api.js';
import type {
  CallLimits,
  Devices,
  MoveOptions,
  MoveReport,
  Peer,
  RegisterOptions,
  RequestHandler,
  Transfer,
} from '../transfer/transfer.js';

/** How long an answer is believed, and how long one is waited for at most. */
const TTL_MS = 5000;
const TIMEOUT_MS = 5000;
const MAX_BYTES = 1 << 20;
const MAX_KNOWN = 256;

export class BootstrapTransfer implements Transfer {
  readonly #transfer: Transfer;
  readonly #known = new Map<string, { address: Promise<string>; until: number }>();

  constructor(transfer: Transfer) {
    this.#transfer = transfer;
  }

  get address(): string {
    return this.#transfer.address;
  }

  get generation(): string {
    return this.#transfer.generation;
  }

  get devices(): Devices | undefined {
    return this.#transfer.devices;
  }

  register(memory: Uint8Array | DeviceMemory, options?: RegisterOptions): number {
    return this.#transfer.register(memory, options);
  }

  unregister(segment: number): Promise<void> {
    return this.#transfer.unregister(segment);
  }

  memory(segment: number): Uint8Array {
    return this.#transfer.memory(segment);
  }

  copy(descriptors: Descriptors, options?: MoveOptions): Promise<MoveReport> {
    return this.#transfer.copy(descriptors, options);
  }

  serve(service: string, handler: RequestHandler): () => void {
    return this.#transfer.serve(service, handler);
  }

  close(): Promise<void> {
    return this.#transfer.close();
  }

  async connect(address: string, limits: CallLimits = {}): Promise<Peer> {
    if (!/^https?:\/\//.test(address)) return this.#transfer.connect(address, limits);
    const resolved = await this.#resolve(address, limits);
    try {
      return await this.#transfer.connect(resolved, limits);
    } catch (error) {
      this.#known.delete(address);
      throw error;
    }
  }

  #resolve(url: string, { timeoutMs = TIMEOUT_MS }: CallLimits): Promise<string> {
    const now = performance.now();
    for (const [known, { until }] of this.#known) if (until < now) this.#known.delete(known);
    const known = this.#known.get(url);
    if (known !== undefined) return known.address;
    if (this.#known.size >= MAX_KNOWN) this.#known.clear();
    // Several loads may wait for it, so it is not one load's to give up.
    const address = ask(url, Math.min(timeoutMs, TIMEOUT_MS));
    this.#known.set(url, { address, until: now + TTL_MS });
    address.catch(() => this.#known.delete(url));
    return address;
  }
}

/** Throws ERR_PEER where nobody answers, ERR_NOT_SUPPORTED for engines that are not ours. */
async function ask(url: string, timeoutMs: number): Promise<string> {
  let text: string;
  try {
    const signal = AbortSignal.timeout(timeoutMs);
    const response = await fetch(new URL('/query', url), { signal, redirect: 'error' });
    if (!response.ok) throw new Error(`status ${response.status}`);
    text = await bodyOf(response);
  } catch (cause) {
    if (cause instanceof MooncakeError) throw cause;
    throw errors.peer(url, `its bootstrap server does not answer /query (${(cause as Error).message})`, cause);
  }
  for (const entry of entriesOf(url, text)) {
    const { address } = ((entry as { mooncake_ts?: unknown } | null)?.mooncake_ts ?? {}) as { address?: unknown };
    if (typeof address === 'string') return address;
  }
  const instead = 'its bootstrap server names no engine of ours; prefill with mooncake_ts_vllm, or decode with vLLM';
  throw errors.notSupported(`a hand-over from ${url}`, instead);
}

function entriesOf(url: string, text: string): unknown[] {
  try {
    return Object.values(JSON.parse(text) ?? {});
  } catch (cause) {
    throw errors.peer(url, 'its bootstrap server does not answer JSON', cause);
  }
}

async function bodyOf(response: Response): Promise<string> {
  const pieces: Uint8Array[] = [];
  let length = 0;
  for await (const piece of response.body ?? []) {
    length += piece.length;
    if (length > MAX_BYTES) throw new Error(`more than ${MAX_BYTES} bytes`);
    pieces.push(piece);
  }
  return Buffer.concat(pieces).toString();
}
