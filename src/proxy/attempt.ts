/** The tries of one completion until an engine's answer begins: who prefills, who decodes, and what a failure leaves to do. */
import type { IncomingMessage, OutgoingHttpHeaders } from 'node:http';
import { errors, MooncakeError } from '../core/errors.js';
import type { CompletionRequest, KvTransferParams } from './completion.js';
import type { Parts } from './completions.js';
import type { Instance, Lane, Role } from './instance.js';
import { type Prefill, type PrefillEnd, startPrefill } from './prefill.js';
import { brokenOff, firstChunk } from './relay.js';
import type { Prompt } from './scheduling.js';
import { isStale, neverArrived, reasonOf } from './upstream.js';
import { Visit } from './visit.js';

export interface Subject {
  readonly request: CompletionRequest;
  readonly prompt: Prompt;
  readonly headers: OutgoingHttpHeaders;
  /** The client's, and the request's deadline. */
  readonly signal: AbortSignal;
}

/** Where the decode engine finds the prompt's KV. */
export interface Source {
  /** Why there is none: the decode engine computes alone. */
  readonly alone?: string;
  readonly params?: KvTransferParams;
  readonly prefill?: Prefill;
}

export interface Answer {
  readonly answer: IncomingMessage;
  readonly first: Buffer | undefined;
  readonly visit: Visit;
  readonly source: Source;
}

/** The prefill engine failed, not the decode engine that waited for it. */
class PrefillFailed extends MooncakeError {
  constructor(cause: MooncakeError) {
    super(cause.code, cause.message, { argument: cause.argument, value: cause.value, cause });
  }
}

export class Attempt {
  readonly #parts: Parts;
  readonly #subject: Subject;
  readonly #tried = { prefill: new Set<Instance>(), decode: new Set<Instance>() };
  /** Undefined: to be prefilled (again). */
  #source: Source | undefined;
  #alone: string | undefined;
  #retries: number;
  #visit: Visit | undefined;
  /** Whose answer it is, once it has begun. */
  #begun: Instance | undefined;

  constructor(parts: Parts, subject: Subject) {
    this.#parts = parts;
    this.#subject = subject;
    this.#retries = parts.settings.retries;
  }

  /** The beginning of the answer. @throws ERR_NO_INSTANCE, ERR_PEER, ERR_TIMEOUT, ERR_ABORTED */
  async answer(): Promise<Answer> {
    const { signal } = this.#subject;
    let last: MooncakeError | undefined;
    for (;;) {
      this.#source ??= await this.#prepare();
      const source = this.#source;
      const visit = this.#enter('decode');
      if (visit === undefined) throw last ?? errors.noInstance(this.#count('decode'));
      this.#visit = visit;
      try {
        // A transfer that a decode was told of must be fetched, else the prefill engine keeps it for minutes.
        if (source.params !== undefined) visit.stay(source.prefill?.ended ?? Promise.resolve());
        const begun = await this.#decode(visit, source);
        visit.hurry();
        if (signal.aborted) throw reasonOf(signal);
        // The KV has arrived: the prefill engine is needed no more.
        source.prefill?.visit.end();
        this.#begun = visit.instance;
        return { ...begun, visit, source };
      } catch (error) {
        visit.end();
        if (signal.aborted) throw reasonOf(signal);
        if (!(error instanceof MooncakeError)) throw error;
        last = error;
        const isPrefill = error instanceof PrefillFailed;
        if (isPrefill) this.#blame('prefill', source.prefill!.visit.instance, error);
        else this.#blame('decode', visit.instance, error);
        // A transfer can be fetched once. One that nobody was told of is still there.
        if (source.params !== undefined && (isPrefill || !neverArrived(error))) this.#again(source);
        if (this.#retries-- <= 0) throw error;
        this.#parts.metrics.retries.add(isPrefill ? 'prefill' : 'decode');
      }
    }
  }

  /** Gives a source up, so that the next try begins with a prefill. One that still runs is let end: a decode may wait for it. */
  #again({ prefill }: Source): void {
    prefill?.visit.end();
    this.#source = undefined;
  }

  #count(role: Role): number {
    return this.#parts.fleet.instances.filter((one) => one.role === role).length;
  }

  #blame(role: Role, instance: Instance, error: MooncakeError): void {
    instance.failures++;
    // A kept connection that was closed says nothing about the engine.
    if (!isStale(error)) this.#tried[role].add(instance);
    this.#parts.fleet.suspect(instance, error.message, neverArrived(error));
  }

  /** A visit to the engine that the policy chooses among those not tried yet. */
  #enter(role: Role, lanes: readonly Lane[] = this.#parts.fleet.lanes(role)): Visit | undefined {
    const { scheduler, metrics, fleet } = this.#parts;
    const { prompt, signal } = this.#subject;
    const left = lanes.filter(({ instance }) => !this.#tried[role].has(instance));
    const chosen = scheduler.choose(role, left, prompt);
    if (chosen === undefined) return undefined;
    if (role === 'prefill') {
      metrics.choices.add(chosen.by);
      metrics.promptBlocks += prompt.hashes?.length ?? 0;
      metrics.overlapBlocks += chosen.overlap;
    }
    return new Visit(fleet, chosen.lane, prompt.blocks, signal);
  }

  /** Has the prompt prefilled, or begun to be where the decode is sent at the same time. */
  async #prepare(): Promise<Source> {
    const { settings, metrics } = this.#parts;
    const { signal } = this.#subject;
    let failed = false;
    while (this.#alone === undefined) {
      const prefill = this.#prefill();
      if (prefill === undefined) {
        this.#alone ??= failed || this.#tried.prefill.size > 0 ? 'prefill_failed' : 'no_prefill';
        break;
      }
      if (settings.concurrent && prefill.params !== undefined) {
        // One that is given up while a decode asks for its KV holds one of the engine's 20 senders for minutes.
        prefill.visit.stay(prefill.ended);
        return { params: prefill.params, prefill };
      }
      try {
        const end = await prefill.ended;
        if (end.kept) return { params: end.params, prefill };
        this.#alone = end.why;
        prefill.visit.end();
      } catch (error) {
        prefill.visit.end();
        if (signal.aborted) throw reasonOf(signal);
        if (!(error instanceof MooncakeError)) throw error;
        failed = true;
        this.#blame('prefill', prefill.visit.instance, error);
        if (this.#retries-- <= 0) this.#alone = 'prefill_failed';
        else metrics.retries.add('prefill');
        if (this.#alone !== undefined && !settings.computeAlone) throw error;
      }
    }
    const isFailure = this.#alone === 'no_prefill' || this.#alone === 'prefill_failed';
    if (isFailure && !settings.computeAlone) throw errors.noInstance(this.#count('prefill'));
    return { alone: this.#alone };
  }

  /** Undefined where there is nobody to prefill, or it is of no use (`#alone` says why then). */
  #prefill(): Prefill | undefined {
    const { fleet, settings, metrics, scheduler } = this.#parts;
    const { request, prompt, headers } = this.#subject;
    const { noHandover } = request;
    let lanes = fleet.lanes('prefill');
    if (noHandover !== undefined && settings.mode !== 'store' && settings.mode !== 'multi') {
      // Only engines that save to a store can help such a request.
      const all = lanes.length;
      lanes = settings.mode === 'auto' ? lanes.filter(({ engineId }) => engineId === undefined) : [];
      if (lanes.length === 0 && all > 0) this.#alone = noHandover;
    }
    const visit = this.#enter('prefill', lanes);
    if (visit === undefined) return undefined;
    const began = performance.now();
    const isTransfer = settings.mode !== 'store' && noHandover === undefined;
    const prefill = startPrefill(request, visit, { headers, timeoutMs: settings.prefillMs, isTransfer });
    const learn = (end: PrefillEnd) => {
      metrics.prefillSeconds.add((performance.now() - began) / 1000);
      if (end.kept) scheduler.learn(visit.lane, prompt);
    };
    prefill.ended.then(learn, () => {});
    return prefill;
  }

  async #decode(visit: Visit, source: Source): Promise<Omit<Answer, 'visit' | 'source'>> {
    const { request, headers } = this.#subject;
    const { instance, signal } = visit;
    const unwatch = this.#watch(visit, source);
    try {
      const body = request.decodeBody(source.params);
      const isOnce = source.params !== undefined;
      const call = { method: 'POST', path: request.path, headers, body, signal, isOnce };
      const answer = await instance.upstream.call(call);
      const status = answer.statusCode ?? 0;
      const canRetry = this.#retries > 0 && this.#others(instance);
      if ((status >= 500 || status === 429) && canRetry) {
        answer.destroy();
        throw errors.peer(instance.name, `the decode is answered with ${status}`);
      }
      const first = await firstChunk(answer, visit);
      instance.heardAt = performance.now();
      // A client takes an empty answer for a whole one; an engine that had one to give sends something.
      if (first === undefined && status === 200) throw brokenOff(visit, new Error('empty'));
      return { answer, first };
    } catch (error) {
      throw signal.aborted ? signal.reason : error;
    } finally {
      unwatch();
    }
  }

  #others(instance: Instance): boolean {
    const { decode } = this.#tried;
    return this.#parts.fleet.lanes('decode').some((lane) => lane.instance !== instance && !decode.has(lane.instance));
  }

  /** Ends a decode that waits for KV which will not come. */
  #watch(visit: Visit, { prefill, params }: Source): () => void {
    if (prefill === undefined || params === undefined) return () => {};
    let isOver = false;
    const give = (error: MooncakeError) => {
      if (!isOver) visit.fail(new PrefillFailed(error));
    };
    const { signal } = prefill.visit;
    const onDead = () => give(signal.reason);
    signal.addEventListener('abort', onDead, { once: true });
    prefill.ended.then(
      (end) => {
        if (end.kept || isOver) return;
        this.#alone = end.why;
        give(errors.peer(prefill.visit.instance.name, 'the prefill left no KV'));
      },
      (error) => give(error),
    );
    return () => {
      isOver = true;
      signal.removeEventListener('abort', onDead);
    };
  }

  /** The answer broke off after its first byte. */
  broken(error: unknown): void {
    const { signal } = this.#subject;
    if (!(error instanceof MooncakeError) || signal.aborted || this.#begun === undefined) return;
    this.#blame('decode', this.#begun, error);
  }

  /** Leaves all engines. */
  end(): void {
    this.#visit?.end();
    this.#source?.prefill?.visit.end();
  }
}
