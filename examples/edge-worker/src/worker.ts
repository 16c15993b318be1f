/**
 * A router at the edge: it sends each completion to the inference engine that holds most of the prompt's KV cache.
 *
 *   POST /v1/completions   {"prompt": [token ids], …}: forwarded to the chosen engine, its answer streamed back
 *   POST /route            the same body: answers with the choice, forwards nothing
 *   GET  /status           what is loaded, and since when
 *
 * The index of who holds which block is a snapshot (PrefixIndex.snapshot) that some other service writes; the worker
 * fetches it from SNAPSHOT_URL and again when it is older than SNAPSHOT_TTL seconds, in the background.
 */
import {
  blockHashes,
  type HashOptions,
  InstanceChooser,
  MooncakeError,
  NO_OVERLAP,
  PrefixIndex,
} from 'mooncake-ts/edge';

export interface Env {
  SNAPSHOT_URL: string;
  /** Seconds. */
  SNAPSHOT_TTL: string;
  /** JSON {name: base URL}: the engines, by their names in the snapshot. */
  INSTANCES: string;
  /** JSON {"algorithm","blockSize","seed"}: what the engines hash with. */
  HASH: string;
}

interface Context {
  waitUntil(promise: Promise<unknown>): void;
}

const DOWN_MS = 10_000;
const RETRY_MS = 5_000;
/** A prompt counts as work of its engine for this long at most: of a client that goes away first the worker never hears. */
const BUSY_MS = 60_000;
/** What fetching a snapshot may take: a request waits for it where there is none yet. */
const SNAPSHOT_MS = 5_000;

/** One engine: where it is, the prompts it was sent and has not answered, and when to try it again if it failed. */
interface Engine {
  name: string;
  url: string;
  sent: Set<{ work: number; until: number }>;
  downUntil: number;
}

/** Prompt blocks that an engine has ahead of it. */
function ahead({ sent }: Engine): number {
  let blocks = 0;
  for (const prompt of sent) {
    if (prompt.until < Date.now()) sent.delete(prompt);
    else blocks += prompt.work;
  }
  return blocks;
}

/** What an isolate keeps between requests. */
class Router {
  readonly engines: Engine[];
  readonly #chooser: InstanceChooser;
  readonly #hash: HashOptions;
  #index: PrefixIndex | undefined;
  #loadedAt = 0;
  #nextFetch = 0;
  #problem: string | undefined;

  constructor(readonly env: Env) {
    const urls = Object.entries<string>(JSON.parse(env.INSTANCES));
    this.engines = urls.map(([name, url]) => ({ name, url, sent: new Set(), downUntil: 0 }));
    this.#chooser = new InstanceChooser(this.engines.map(({ name }) => name));
    this.#hash = JSON.parse(env.HASH);
  }

  get #age(): number {
    return (Date.now() - this.#loadedAt) / 1000;
  }

  /**
   * Fetches the snapshot when there is none or it is too old. A failure leaves the old one in use. One request fetches,
   * the others go on with what there is: a request must not wait for another's I/O, which ends when that one is given up.
   */
  refresh(): Promise<void> | undefined {
    const now = Date.now();
    if (now < this.#nextFetch || (this.#index && this.#age < Number(this.env.SNAPSHOT_TTL))) return undefined;
    this.#nextFetch = now + RETRY_MS;
    return this.#fetchSnapshot();
  }

  async #fetchSnapshot(): Promise<void> {
    try {
      const response = await fetch(this.env.SNAPSHOT_URL, { signal: AbortSignal.timeout(SNAPSHOT_MS) });
      if (!response.ok) throw new Error(`${this.env.SNAPSHOT_URL} answered ${response.status}`);
      this.#index = PrefixIndex.load(new Uint8Array(await response.arrayBuffer()));
      this.#loadedAt = Date.now();
      this.#problem = undefined;
    } catch (error) {
      this.#problem = (error as Error).message;
    }
  }

  get ready(): boolean {
    return this.#index !== undefined;
  }

  /** Chooses an engine for a prompt. With no index at all, by load and turns. */
  choose(tokens: number[]) {
    const hashes = blockHashes(tokens, this.#hash);
    const now = Date.now();
    const { instance, state, overlap } = this.#chooser.choose(this.#index?.match(hashes) ?? NO_OVERLAP, {
      blocks: hashes.length,
      load: this.engines.map((engine) => (engine.downUntil > now ? Number.POSITIVE_INFINITY : ahead(engine))),
      stale: this.#age > 2 * Number(this.env.SNAPSHOT_TTL),
    });
    return { engine: this.engines[instance], state, overlap, blocks: hashes.length };
  }

  status() {
    return {
      loaded: this.ready,
      ageSeconds: this.ready ? Math.round(this.#age) : null,
      blocks: this.#index?.stats().blocks ?? 0,
      bytes: this.#index?.stats().bytes ?? 0,
      problem: this.#problem ?? null,
      engines: this.engines.map((engine) => ({
        name: engine.name,
        ahead: ahead(engine),
        up: engine.downUntil <= Date.now(),
      })),
    };
  }
}

/** Sends the request on, to the next best engine where one does not answer. */
async function forward(router: Router, request: Request, body: string, tokens: number[], context: Context) {
  for (;;) {
    const { engine, state, overlap, blocks } = router.choose(tokens);
    const prompt = { work: blocks - overlap, until: Date.now() + BUSY_MS };
    engine.sent.add(prompt);
    const done = () => engine.sent.delete(prompt);
    let answer: Response;
    try {
      const { pathname } = new URL(request.url);
      answer = await fetch(engine.url + pathname, { method: 'POST', headers: request.headers, body });
    } catch {
      done();
      engine.downUntil = Date.now() + DOWN_MS;
      continue;
    }
    const { readable, writable } = new TransformStream();
    // The engine is busy with this prompt until its answer has been read or given up.
    const read = answer.body?.pipeTo(writable).catch(() => {});
    if (read) context.waitUntil(read.finally(done));
    else done();
    const response = new Response(answer.body ? readable : null, answer);
    response.headers.set('x-mooncake-route', `${engine.name}; state=${state}; overlap=${overlap}/${blocks}`);
    return response;
  }
}

function refusal(error: unknown): Response {
  if (error instanceof SyntaxError) return Response.json({ error: { message: error.message } }, { status: 400 });
  if (!(error instanceof MooncakeError)) throw error;
  const { code, argument, message } = error;
  return Response.json({ error: { code, argument, message } }, { status: code === 'ERR_NO_INSTANCE' ? 503 : 400 });
}

let router: Router | undefined;

export default {
  async fetch(request: Request, env: Env, context: Context): Promise<Response> {
    router ??= new Router(env);
    const { pathname } = new URL(request.url);
    const refreshed = router.refresh();
    if (refreshed && router.ready) context.waitUntil(refreshed);
    else await refreshed;
    if (request.method === 'GET' && pathname === '/status') return Response.json(router.status());
    if (request.method !== 'POST' || !['/route', '/v1/completions'].includes(pathname)) {
      return new Response('not found', { status: 404 });
    }
    try {
      const body = await request.text();
      const tokens = JSON.parse(body)?.prompt;
      if (pathname === '/v1/completions') return await forward(router, request, body, tokens, context);
      const { engine, state, overlap, blocks } = router.choose(tokens);
      return Response.json({ instance: engine.name, url: engine.url, state, overlap, blocks });
    } catch (error) {
      return refusal(error);
    }
  },
};
