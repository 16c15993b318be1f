/**
 * The cluster behind HTTP, in the form of OpenAI's completions, so that curl or any client can try it. It listens on
 * loopback and is for trying out; the proxy for real engines is a command of its own.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { errors, MooncakeError } from '../core/errors.js';
import { listening } from '../listening.js';
import type { Cluster } from './cluster.js';

export interface HttpOptions {
  host: string;
  port: number;
  model: string;
  encode(text: string): Uint32Array;
  /** Longest prompt and answer together, in tokens. */
  maxTokens: number;
  status(): Promise<unknown>;
}

export interface HttpServer {
  url: string;
  close(): Promise<void>;
}

const MAX_BODY = 1 << 20;
const BODY_TIMEOUT = 10_000;

export async function serveHttp(cluster: Cluster, options: HttpOptions): Promise<HttpServer> {
  const server = createServer({ requestTimeout: BODY_TIMEOUT }, (request, response) => {
    handle(cluster, options, request, response).catch((error) => refuse(response, error));
  });
  await listening(server, options.host, options.port);
  const { address, family, port } = server.address() as AddressInfo;
  return {
    url: `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function handle(
  cluster: Cluster,
  options: HttpOptions,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const route = `${request.method} ${(request.url ?? '').split('?')[0]}`;
  switch (route) {
    case 'GET /health':
      return json(response, 200, { status: 'ok' });
    case 'GET /v1/models':
      return json(response, 200, { object: 'list', data: [{ id: options.model, object: 'model' }] });
    case 'GET /status':
      return json(response, 200, await options.status());
    case 'POST /v1/completions':
      return complete(cluster, options, await body(request), response);
    default:
      return json(response, 404, {
        error: { message: `no ${route}; POST /v1/completions, GET /v1/models, /status, /health` },
      });
  }
}

async function complete(cluster: Cluster, options: HttpOptions, message: unknown, response: ServerResponse) {
  const { tokens, maxTokens, stream } = completionOf(message, options);
  const controller = new AbortController();
  response.on('close', () => controller.abort('the client went away'));
  const line = (fields: object) => ({ object: 'text_completion', model: options.model, ...fields });
  let onToken: ((token: number, text: string) => void) | undefined;
  if (stream) {
    onToken = (_, text) => {
      if (!response.headersSent) response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(`data: ${JSON.stringify(line({ choices: [{ index: 0, text, finish_reason: null }] }))}\n\n`);
    };
  }
  const completion = await cluster.generate(tokens, { maxTokens, signal: controller.signal, onToken });
  const usage = {
    prompt_tokens: completion.promptTokens,
    completion_tokens: completion.tokens.length,
    total_tokens: completion.promptTokens + completion.tokens.length,
    prompt_tokens_details: { cached_tokens: completion.prefillCached.local + completion.prefillCached.store },
  };
  const answer = line({
    choices: [{ index: 0, text: stream ? '' : completion.text, finish_reason: completion.finishReason }],
    usage,
  });
  if (stream) {
    if (!response.headersSent) response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.end(`data: ${JSON.stringify(answer)}\n\ndata: [DONE]\n\n`);
  } else {
    json(response, 200, answer);
  }
}

function completionOf(message: unknown, { encode, maxTokens: limit }: HttpOptions) {
  if (typeof message !== 'object' || message === null || Array.isArray(message)) {
    throw errors.invalidArgument('body', message, 'a JSON object');
  }
  const { prompt, max_tokens: wanted = 16, stream = false } = message as Record<string, unknown>;
  if (typeof prompt !== 'string' || prompt.length === 0) {
    throw errors.invalidArgument('prompt', prompt, 'a string that is not empty');
  }
  const tokens = encode(prompt);
  if (!Number.isInteger(wanted) || (wanted as number) < 1) {
    throw errors.invalidArgument('max_tokens', wanted, 'an integer from 1');
  }
  const maxTokens = wanted as number;
  if (tokens.length + maxTokens > limit) {
    const expected = `such that with the prompt's ${tokens.length} tokens there are at most ${limit}`;
    throw errors.invalidArgument('max_tokens', wanted, expected);
  }
  if (typeof stream !== 'boolean') throw errors.invalidArgument('stream', stream, 'true or false');
  return { tokens, maxTokens, stream };
}

async function body(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length > MAX_BODY) throw errors.invalidArgument('body', length, `at most ${MAX_BODY} bytes`);
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString());
  } catch {
    throw errors.invalidArgument('body', Buffer.concat(chunks).toString(), 'JSON');
  }
}

function refuse(response: ServerResponse, error: unknown): void {
  if (response.destroyed) return;
  const known = error instanceof MooncakeError;
  const status = known && error.code === 'ERR_INVALID_ARGUMENT' ? 400 : known ? 503 : 500;
  const fields = {
    error: { message: error instanceof Error ? error.message : String(error), code: known ? error.code : undefined },
  };
  // Half a stream is out already: an error event ends it.
  if (response.headersSent) response.end(`data: ${JSON.stringify(fields)}\n\n`);
  else json(response, status, fields);
}

function json(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(`${JSON.stringify(value)}\n`);
}
