/**
 * The proxy in front of prefill and decode engines: OpenAI's completions, chat completions and models, X prefill and Y decode
 * engines that come and go. Engines are vLLM's servers, with stock connectors or ours: what the proxy speaks to them is
 * vLLM's own HTTP API and the bootstrap query of its MooncakeConnector (docs/proxy.md).
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { integer, string } from '../core/check.js';
import { errors, MooncakeError } from '../core/errors.js';
import { listening } from '../listening.js';
import { ProcessFigures } from '../metrics/process.js';
import { changeInstances, status } from './admin.js';
import { json, Refusal, refuse } from './answers.js';
import { Completions, type Parts } from './completions.js';
import { Fleet } from './fleet.js';
import { ProxyMetrics } from './metrics.js';
import { instanceOptions, proxySettings, type XpydProxyOptions } from './options.js';
import { passThrough } from './pass-through.js';
import { PromptTokenizer } from './prompt-tokens.js';
import { Scheduler } from './scheduling.js';

/** A client must have sent its request's head, and all of it, in these times. */
const HEAD_MS = 10_000;
const BODY_MS = 120_000;
/** A client's connection without a request. */
const KEEP_ALIVE_MS = 75_000;

type Handler = (request: IncomingMessage, response: ServerResponse) => Promise<void> | void;

export class XpydProxy {
  readonly #server: Server;
  readonly #parts: Parts;
  readonly #completions: Completions;
  readonly #figures = new ProcessFigures();
  readonly #routes: Readonly<Record<string, Handler>>;
  #closing: Promise<void> | undefined;

  private constructor(options: XpydProxyOptions) {
    const settings = proxySettings(options);
    const { log, mode, healthMs, healthTimeoutMs } = settings;
    const scheduler = new Scheduler(settings.scheduling);
    const forgotten = scheduler.forget.bind(scheduler);
    const fleet = new Fleet({ mode, healthMs, healthTimeoutMs, log, forgotten });
    this.#parts = { fleet, scheduler, settings, tokenizer: new PromptTokenizer(), metrics: new ProxyMetrics() };
    for (const role of ['prefill', 'decode'] as const) {
      for (const [i, one] of (options[role] ?? []).entries()) {
        fleet.add(instanceOptions(`options.${role}[${i}]`, role, one, mode));
      }
    }
    this.#completions = new Completions(this.#parts);
    this.#routes = this.#table();
    this.#server = createServer(
      { headersTimeout: HEAD_MS, requestTimeout: BODY_MS, keepAliveTimeout: KEEP_ALIVE_MS, noDelay: true },
      (request, response) => this.#serve(request, response),
    );
  }

  /**
   * Listens, and asks each engine whether it is there; those that are not yet are asked again.
   * @throws ERR_INVALID_ARGUMENT, ERR_NOT_SUPPORTED, and ERR_PEER where the address cannot be listened on
   */
  static async listen(options: XpydProxyOptions = {}): Promise<XpydProxy> {
    const host = string('options.host', options.host ?? '127.0.0.1');
    const port = integer('options.port', options.port ?? 8000, 0, 65_535);
    const proxy = new XpydProxy(options);
    try {
      await listening(proxy.#server, host, port);
      await proxy.#parts.fleet.start();
    } catch (error) {
      await proxy.close();
      throw error;
    }
    return proxy;
  }

  get url(): string {
    const { address, family, port } = this.#server.address() as AddressInfo;
    return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`;
  }

  /** What `GET /status` answers. */
  status(): object {
    return status(this.#parts.fleet, this.#parts.settings);
  }

  #table(): Record<string, Handler> {
    const { fleet, settings, scheduler, metrics } = this.#parts;
    const complete = (path: string) => (request: IncomingMessage, response: ServerResponse) => {
      const type = request.headers['content-type'] ?? 'application/json';
      if (!/^application\/json\b/i.test(type)) {
        throw new Refusal(415, errors.invalidArgument('Content-Type', type, 'application/json'));
      }
      return this.#completions.serve(path, request, response);
    };
    const pass: Handler = (request, response) => passThrough(this.#parts, request, response);
    const change = (what: 'add' | 'remove'): Handler => {
      return (request, response) => changeInstances(what, fleet, settings, request, response);
    };
    const health: Handler = (_, response) => {
      const [prefill, decode] = [fleet.lanes('prefill').length, fleet.lanes('decode').length];
      const isWell = decode > 0 && (prefill > 0 || settings.computeAlone);
      json(response, isWell ? 200 : 503, {
        status: isWell ? 'ok' : 'no engines',
        prefill_instances: prefill,
        decode_instances: decode,
      });
    };
    return {
      'POST /v1/completions': complete('/v1/completions'),
      'POST /v1/chat/completions': complete('/v1/chat/completions'),
      'GET /v1/models': pass,
      'POST /tokenize': pass,
      'POST /detokenize': pass,
      'POST /instances/add': change('add'),
      'POST /instances/remove': change('remove'),
      'GET /status': (_, response) => json(response, 200, this.status()),
      'GET /health': health,
      'GET /healthcheck': health,
      'GET /metrics': (_, response) => {
        const text = metrics.write(fleet.instances, scheduler.blocks, this.#figures);
        response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' }).end(text);
      },
    };
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // Errors of the connection show as its close.
    request.on('error', () => {});
    response.on('error', () => {});
    try {
      if (this.#closing !== undefined) {
        // On a connection that was busy when the listener closed; it is not kept for more.
        response.setHeader('connection', 'close');
        throw errors.closed('the proxy');
      }
      const path = (request.url ?? '').split('?', 1)[0];
      const handler = Object.hasOwn(this.#routes, `${request.method} ${path}`)
        ? this.#routes[`${request.method} ${path}`]
        : undefined;
      if (handler === undefined) throw this.#unknown(request.method ?? '', path);
      await handler(request, response);
    } catch (error) {
      if (!(error instanceof MooncakeError)) this.#parts.settings.log(`a request failed: ${(error as Error).stack}`);
      refuse(response, error);
    }
  }

  #unknown(method: string, path: string): Refusal {
    const other = Object.keys(this.#routes).filter((route) => route.endsWith(` ${path}`));
    if (other.length > 0) {
      return new Refusal(405, errors.invalidArgument('method', method, `${other[0].split(' ')[0]} for ${path}`));
    }
    return new Refusal(404, errors.invalidArgument('path', path, `one of ${Object.keys(this.#routes).join(', ')}`));
  }

  /** Takes no more requests, lets those under way end for `graceMs`, then ends them. */
  close(graceMs = 0): Promise<void> {
    this.#closing ??= this.#end(integer('graceMs', graceMs, 0, 2 ** 31 - 1));
    return this.#closing;
  }

  async #end(graceMs: number): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      if (this.#server.listening) this.#server.close(() => resolve());
      else resolve();
    });
    await this.#completions.close(graceMs);
    this.#parts.fleet.close();
    this.#figures.close();
    this.#server.closeAllConnections();
    await closed;
  }
}
