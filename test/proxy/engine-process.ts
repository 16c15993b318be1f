/**
 * An engine as the proxy sees one: vLLM's HTTP API, its bootstrap server, and KV that can be fetched once, in a process that
 * can be killed. What it generates names the prompt and the token, so that a lost or mixed stream shows; where its KV came
 * from is in each answer. `dummy` in a request says what goes wrong, and at which engine (by name).
 */
import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as wait } from 'node:timers/promises';

interface Dummy {
  /** Milliseconds before each token, and of a prefill. */
  delay?: number;
  prefillDelay?: number;
  /** Bytes that each token is longer by. */
  padding?: number;
  /** When the engine of this name kills itself. */
  die?: { engine: string; when: 'prefill' | 'head' | 'first' | 'middle' };
  /** Status that the engine of this name answers with, in the role given. */
  fail?: { engine: string; status: number };
  finish?: string;
}

interface Fields {
  prompt?: unknown;
  messages?: unknown;
  model?: string;
  max_tokens?: number;
  stream?: boolean;
  n?: number;
  kv_transfer_params?: Record<string, unknown>;
  dummy?: Dummy;
}

const [name, role, blockSize = '16', algorithm = 'sha256_cbor', httpPort = '0', ranks = '1'] = process.argv.slice(2);
const engineIds = Array.from({ length: Number(ranks) }, () => randomUUID());
/** Prompts whose KV is kept for a decode, by transfer id. */
const kept = new Map<string, string>();
const waiting = new Map<string, (prompt: string) => void>();
const log: object[] = [];
let running = 0;
let healthDelay = 0;

const die = () => void process.kill(process.pid, 'SIGKILL');

async function bodyOf(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of request.setEncoding('utf8')) text += chunk;
  return text;
}

function json(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
}

/** Fetches a transfer from the engine that keeps it. */
async function pull(params: Record<string, unknown>, signal: AbortSignal): Promise<string> {
  const known = await (await fetch(`${params.remote_bootstrap_addr}/query`, { signal })).json();
  const isThere = Object.values(known as object).some(({ engine_id }) => engine_id === params.remote_engine_id);
  if (!isThere) return 'unknown engine';
  const answer = await fetch(`${params.remote_bootstrap_addr}/pull?id=${params.transfer_id}`, { signal });
  return await answer.text();
}

async function complete(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const body = await bodyOf(request);
  const fields = JSON.parse(body) as Fields;
  const prompt = JSON.stringify(fields.prompt ?? fields.messages);
  const { dummy = {}, kv_transfer_params: params } = fields;
  const { 'x-request-id': id, 'x-data-parallel-rank': rank, authorization } = request.headers;
  const entry: Record<string, unknown> = { role, path: request.url, prompt, body, id, rank, authorization };
  log.push(entry);
  const gone = new AbortController();
  response.once('close', () => {
    if (response.writableFinished) return;
    entry.aborted = true;
    gone.abort();
  });
  const left = new Promise((done) => gone.signal.addEventListener('abort', done));
  const mine = dummy.die?.engine === name ? dummy.die.when : undefined;
  if (dummy.fail?.engine === name) return json(response, dummy.fail.status, { error: { message: `${name} fails` } });
  if (fields.model === 'unknown') {
    return json(response, 404, { error: { message: 'The model `unknown` does not exist.', code: 404 } });
  }
  if (role === 'prefill') {
    if (mine === 'prefill') {
      await wait(20);
      return die();
    }
    await wait(dummy.prefillDelay ?? dummy.delay ?? 0);
    if (gone.signal.aborted) return;
    const finish = dummy.finish ?? 'length';
    if (params?.do_remote_decode && finish === 'length') {
      const transfer = params.transfer_id as string;
      kept.set(transfer, prompt);
      waiting.get(transfer)?.(prompt);
    }
    return json(response, 200, { choices: [{ text: 'P', finish_reason: finish }] });
  }
  let kv = 'computed';
  if (params?.do_remote_prefill) {
    const got = await pull(params, gone.signal).catch(() => 'unreachable');
    kv = got === prompt ? 'transfer' : `wrong: ${got}`;
  }
  entry.kv = kv;
  const tokens = Array.from(
    { length: fields.max_tokens ?? 16 },
    (_, i) => `${prompt}:${i};${'x'.repeat(dummy.padding ?? 0)}`,
  );
  if (!fields.stream) {
    await wait(dummy.delay ?? 0);
    if (mine === 'head') return die();
    return json(response, 200, { kv, engine: name, choices: [{ text: tokens.join(''), finish_reason: 'length' }] });
  }
  if (mine === 'head') return die();
  response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8', 'x-engine': name }).flushHeaders();
  for (const [i, text] of tokens.entries()) {
    if (dummy.delay) await wait(dummy.delay);
    if (mine === 'first' && i === 0) {
      await wait(20);
      return die();
    }
    if (gone.signal.aborted) return;
    const event = `data: ${JSON.stringify({ kv, engine: name, choices: [{ index: 0, text }] })}\n\n`;
    if (mine === 'middle' && i === 3) {
      // In the middle of an event.
      response.write(event.slice(0, 20));
      await wait(20);
      return die();
    }
    entry.written = ((entry.written as number) ?? 0) + event.length;
    if (!response.write(event)) await Promise.race([new Promise((done) => response.once('drain', done)), left]);
  }
  response.end('data: [DONE]\n\n');
}

async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url!, 'http://engine');
  switch (`${request.method} ${url.pathname}`) {
    case 'POST /v1/completions':
    case 'POST /v1/chat/completions':
      running++;
      try {
        return await complete(request, response);
      } finally {
        running--;
      }
    case 'GET /health':
      await wait(healthDelay);
      return void response.end();
    case 'GET /v1/models':
      return json(response, 200, { object: 'list', data: [{ id: 'tiny' }] });
    case 'POST /tokenize': {
      const { prompt, messages } = JSON.parse(await bodyOf(request));
      log.push({ path: '/tokenize' });
      const text = typeof prompt === 'string' ? prompt : JSON.stringify(messages);
      if (text.includes('slow')) await wait(200);
      return json(response, 200, { tokens: [...Buffer.from(text)] });
    }
    case 'GET /metrics':
      return void response.end(
        `vllm:cache_config_info{block_size="${blockSize}",engine="0",num_gpu_blocks="64",prefix_caching_hash_algo="${algorithm}"} 1.0\n`,
      );
    case 'GET /query':
      return json(response, 200, Object.fromEntries(engineIds.map((id, i) => [i, { engine_id: id, worker_addr: {} }])));
    case 'GET /pull': {
      const id = url.searchParams.get('id')!;
      const prompt = kept.get(id) ?? (await new Promise<string>((resolve) => waiting.set(id, resolve)));
      kept.delete(id);
      return void response.end(prompt);
    }
    case 'GET /log':
      return json(response, 200, { running, kept: kept.size, log });
    case 'POST /slow-health':
      healthDelay = Number(url.searchParams.get('ms'));
      return void response.end();
    default:
      return json(response, 404, {});
  }
}

const server = createServer((request, response) => {
  serve(request, response).catch((error) => {
    if (!response.headersSent) response.writeHead(500);
    response.end(String(error));
  });
});
server.listen(Number(httpPort), '127.0.0.1', () => {
  const { port } = server.address() as AddressInfo;
  process.send!({ port });
});
process.on('disconnect', () => process.exit());
