/**
 * A completion from its arrival to its last byte.
 *
 *     client ──► read, check ──► prompt's tokens ──► prefill engine ──► decode engine ──► client
 *                                (prefix_aware)      one token          the answer
 *
 * Until the first byte for the client everything may be tried again: a prefill on another engine, a decode on another one,
 * both where the KV of the first prefill may be spent. Where no prefill succeeds the decode engine computes the prompt
 * itself, which is slower and as right (`whenPrefillFails: 'refuse'` answers with an error instead). After the first byte the
 * client is told in its stream.
 */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { errors, MooncakeError } from '../core/errors.js';
import { Refusal, readBody, refuse, statusOf } from './answers.js';
import { Attempt, type Source } from './attempt.js';
import { CompletionRequest } from './completion.js';
import type { Fleet } from './fleet.js';
import type { ProxyMetrics } from './metrics.js';
import type { ProxySettings } from './options.js';
import type { PromptTokenizer } from './prompt-tokens.js';
import { endToEnd, relay } from './relay.js';
import { BLOCK, type Prompt, type Scheduler } from './scheduling.js';
import { reasonOf } from './upstream.js';

export interface Parts {
  readonly fleet: Fleet;
  readonly scheduler: Scheduler;
  readonly tokenizer: PromptTokenizer;
  readonly metrics: ProxyMetrics;
  readonly settings: ProxySettings;
}

/** Request headers that engines are not to see: they are the proxy's own. */
const NOT_PASSED = [
  'host',
  'content-length',
  'accept-encoding',
  'expect',
  'x-request-id',
  'x-data-parallel-rank',
  'x-api-key',
];
/** A client's id that is passed on in the engines' logs. */
const REQUEST_ID = /^[\w.:-]{1,64}$/;

export class Completions {
  readonly #parts: Parts;
  readonly #running = new Set<AbortController>();
  #bodyBytes = 0;
  #idle: (() => void) | undefined;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Serves `POST path` to its end; never throws. */
  async serve(path: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { metrics, settings } = this.#parts;
    const began = performance.now();
    const controller = new AbortController();
    const timer = setTimeout(
      () => controller.abort(errors.timeout('the request', settings.requestMs)),
      settings.requestMs,
    );
    response.once('close', () => {
      if (!response.writableFinished) controller.abort(errors.aborted('the client went away'));
    });
    this.#running.add(controller);
    metrics.inFlight++;
    let held = 0;
    let outcome: string;
    try {
      if (this.#running.size > settings.maxRequests) throw errors.queueFull(settings.maxRequests);
      // Counted as they come: many that are half sent fill the memory as well.
      const body = await readBody(request, settings.maxBodyBytes, (bytes) => {
        const sum = this.#bodyBytes + bytes;
        if (sum > settings.maxBufferedBytes) throw new Refusal(503, errors.outOfMemory('the requests under way', sum));
        this.#bodyBytes = sum;
        held += bytes;
      });
      outcome = await this.#complete(path, body, request, response, controller.signal, began);
    } catch (error) {
      if (!(error instanceof MooncakeError)) settings.log(`a request failed: ${(error as Error).stack}`);
      const isGone = response.destroyed && !response.headersSent;
      outcome = isGone || isAbort(error) ? 'aborted' : response.headersSent ? 'broken' : String(statusOf(error));
      refuse(response, error);
    } finally {
      clearTimeout(timer);
      this.#bodyBytes -= held;
      this.#running.delete(controller);
      if (this.#running.size === 0) this.#idle?.();
    }
    metrics.inFlight--;
    metrics.requests.add(outcome);
    metrics.requestSeconds.add((performance.now() - began) / 1000);
  }

  async #complete(
    path: string,
    body: Buffer,
    incoming: IncomingMessage,
    response: ServerResponse,
    signal: AbortSignal,
    began: number,
  ): Promise<string> {
    const { metrics, settings } = this.#parts;
    const request = new CompletionRequest(path, body);
    const { model } = request;
    if (settings.model !== undefined && model !== undefined && model !== settings.model) {
      const known = errors.invalidArgument('model', model, `${JSON.stringify(settings.model)}, the model served here`);
      throw new Refusal(404, known);
    }
    const prompt = await this.#look(request);
    if (signal.aborted) throw reasonOf(signal);
    const id = requestId(incoming);
    const attempt = new Attempt(this.#parts, { request, prompt, headers: headersOf(incoming, id), signal });
    try {
      const { answer, first, visit, source } = await attempt.answer();
      metrics.handovers.add(kindOf(source));
      metrics.firstByteSeconds.add((performance.now() - began) / 1000);
      const status = answer.statusCode ?? 502;
      response.writeHead(status, { ...endToEnd(answer.headers), 'x-request-id': id });
      await relay(answer, first, response, {
        visit,
        idleMs: settings.idleMs,
        onBytes: (bytes) => {
          metrics.bytes += bytes;
        },
      });
      return String(status);
    } catch (error) {
      attempt.broken(error);
      throw error;
    } finally {
      attempt.end();
    }
  }

  /** What the choice of an engine goes by. */
  async #look(request: CompletionRequest): Promise<Prompt> {
    const { scheduler, tokenizer, metrics, fleet } = this.#parts;
    const estimate = Math.ceil(request.estimatedTokens / BLOCK);
    if (!scheduler.wantsTokens) return { blocks: estimate, hashes: undefined };
    const engine = fleet.lanes('prefill')[0] ?? fleet.lanes('decode')[0];
    const { tokens, from } = await tokenizer.tokensOf(request, engine?.instance.upstream);
    metrics.tokens.add(from);
    if (tokens === undefined) return { blocks: estimate, hashes: undefined };
    const { cache_salt: salt } = request.fields;
    const hashes = scheduler.hashes(tokens, request.model ?? '', typeof salt === 'string' ? salt : '');
    return { blocks: hashes.length, hashes };
  }

  /** Resolves when nothing runs any more; what still runs after `graceMs` is ended. */
  async close(graceMs: number): Promise<void> {
    if (this.#running.size === 0) return;
    const timer = setTimeout(() => {
      const closed = errors.closed('the proxy');
      for (const controller of this.#running) controller.abort(closed);
      for (const instance of this.#parts.fleet.instances) instance.failFlights(closed);
    }, graceMs);
    await new Promise<void>((resolve) => {
      this.#idle = resolve;
    });
    clearTimeout(timer);
  }
}

const isAbort = (error: unknown) => error instanceof MooncakeError && error.code === 'ERR_ABORTED';
const kindOf = (source: Source) => source.alone ?? (source.params === undefined ? 'store' : 'transfer');

function requestId({ headers }: IncomingMessage): string {
  const given = headers['x-request-id'];
  return typeof given === 'string' && REQUEST_ID.test(given) ? given : randomUUID();
}

/** Headers for engines: the client's, under an id that no other request has. */
function headersOf(incoming: IncomingMessage, id: string): OutgoingHttpHeaders {
  const headers = endToEnd(incoming.headers);
  for (const name of NOT_PASSED) delete headers[name];
  const { OPENAI_API_KEY: key } = process.env;
  if (headers.authorization === undefined && key) headers.authorization = `Bearer ${key}`;
  headers['x-request-id'] = incoming.headers['x-request-id'] === id ? `${id}-${randomUUID()}` : id;
  return headers;
}
