/**
 * The prefill half of a completion: a prefill engine computes the prompt and keeps its KV for the decode engine, or saves it
 * in the store. Each try has a transfer id of its own, so that nothing of a failed one is taken for another.
 */
import { randomUUID } from 'node:crypto';
import type { OutgoingHttpHeaders } from 'node:http';
import { errors } from '../core/errors.js';
import type { CompletionRequest, KvTransferParams } from './completion.js';
import { bodyOf } from './upstream.js';
import type { Visit } from './visit.js';

/** How a prefill ended: the KV is there, or why it is not. */
export type PrefillEnd =
  | { readonly kept: true; readonly params: KvTransferParams | undefined }
  | { readonly kept: false; readonly why: 'refused' | 'not_kept' };

export interface Prefill {
  readonly visit: Visit;
  /** For the decode request, as far as they are known before the prefill has ended; undefined: through the store. */
  readonly params: KvTransferParams | undefined;
  /** Rejects with ERR_PEER, ERR_TIMEOUT, or what ended the request. */
  readonly ended: Promise<PrefillEnd>;
}

/** An answer of one token; with logprobs or token ids of the prompt it may be long. */
const MAX_ANSWER = 64 * 2 ** 20;

export interface PrefillOptions {
  readonly headers: OutgoingHttpHeaders;
  readonly timeoutMs: number;
  /** Whether the KV goes straight to the decode engine. */
  readonly isTransfer: boolean;
}

export function startPrefill(request: CompletionRequest, visit: Visit, options: PrefillOptions): Prefill {
  const { engineId } = visit.lane;
  if (!options.isTransfer || engineId === undefined) {
    return { visit, params: undefined, ended: send(request, visit, undefined, undefined, options) };
  }
  const id = `xfer-${randomUUID()}`;
  const params = {
    do_remote_decode: false,
    do_remote_prefill: true,
    remote_bootstrap_addr: visit.instance.bootstrap,
    remote_engine_id: engineId,
    transfer_id: id,
  };
  const keep = { do_remote_decode: true, do_remote_prefill: false, transfer_id: id };
  return { visit, params, ended: send(request, visit, keep, params, options) };
}

async function send(
  request: CompletionRequest,
  visit: Visit,
  keep: KvTransferParams | undefined,
  params: KvTransferParams | undefined,
  { headers, timeoutMs }: PrefillOptions,
): Promise<PrefillEnd> {
  const { instance, lane, signal } = visit;
  const timer = setTimeout(() => visit.fail(errors.timeout(`the prefill at ${instance.name}`, timeoutMs)), timeoutMs);
  try {
    const body = request.prefillBody(keep);
    const rank = lane.rank === undefined ? headers : { ...headers, 'x-data-parallel-rank': String(lane.rank) };
    const response = await instance.upstream.call({ method: 'POST', path: request.path, headers: rank, body, signal });
    const answer = await bodyOf(response, instance.name, MAX_ANSWER);
    instance.heardAt = performance.now();
    const status = response.statusCode ?? 0;
    if (status >= 500 || status === 429) throw errors.peer(instance.name, `the prefill is answered with ${status}`);
    // What is wrong with a request is the decode engine's to say: it is the one that the client talks to.
    if (status !== 200) return { kept: false, why: 'refused' };
    if (params === undefined) return { kept: true, params };
    const { isKept, more } = outcome(answer);
    return isKept ? { kept: true, params: { ...params, ...more } } : { kept: false, why: 'not_kept' };
  } catch (error) {
    throw signal.aborted ? signal.reason : error;
  } finally {
    clearTimeout(timer);
    visit.unload();
  }
}

/**
 * Whether the engine keeps the KV, which it does for what ended by its length; and the parameters that it wants passed on,
 * which engines with other connectors return.
 */
function outcome(answer: Buffer): { isKept: boolean; more: KvTransferParams } {
  try {
    const { choices, kv_transfer_params: more } = JSON.parse(answer.toString());
    return { isKept: choices[0].finish_reason === 'length', more: typeof more === 'object' && more ? more : {} };
  } catch {
    return { isKept: false, more: {} };
  }
}
