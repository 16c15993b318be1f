/** A request at an engine: the load it puts there, and the way to end it when the client leaves or the engine dies. */
import type { MooncakeError } from '../core/errors.js';
import type { Fleet } from './fleet.js';
import type { Flight, Instance, Lane } from './instance.js';
import { reasonOf } from './upstream.js';

/**
 * How long a request stays after its client has left, where it must reach the engine's scheduler: vLLM gives a transfer up
 * for requests that it has scheduled or is to, but drops one without a word that it has only just read.
 */
const STAY_MS = 1000;

export class Visit implements Flight {
  readonly lane: Lane;
  readonly #fleet: Fleet;
  readonly #controller = new AbortController();
  readonly #request: AbortSignal;
  readonly #leave = () => this.#left();
  #blocks: number;
  #stays: Promise<unknown> | undefined;
  #timer: NodeJS.Timeout | undefined;

  /** `request` is the client's: when it fires, so does this. */
  constructor(fleet: Fleet, lane: Lane, blocks: number, request: AbortSignal) {
    this.#fleet = fleet;
    this.lane = lane;
    this.#request = request;
    this.#blocks = Math.max(1, blocks);
    lane.load += this.#blocks;
    lane.instance.requests++;
    lane.instance.flights.add(this);
    if (request.aborted) this.#leave();
    else request.addEventListener('abort', this.#leave, { once: true });
  }

  get instance(): Instance {
    return this.lane.instance;
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  #left(): void {
    const error = reasonOf(this.#request);
    const stays = this.#stays;
    if (stays === undefined) {
      this.fail(error);
      return;
    }
    const wait = () => {
      // It may have ended meanwhile, or be in a hurry now.
      if (this.#stays === stays) this.#timer = setTimeout(() => this.fail(error), STAY_MS);
    };
    stays.then(wait, wait);
  }

  /** When the client leaves, the request stays until `what` has settled, and a second longer. */
  stay(what: Promise<unknown>): void {
    this.#stays = what;
  }

  /** When the client leaves, or has left, the request ends. */
  hurry(): void {
    this.#stays = undefined;
    clearTimeout(this.#timer);
    if (this.#request.aborted) this.#left();
  }

  fail(error: MooncakeError): void {
    this.#controller.abort(error);
  }

  /** The engine has computed: the request is no load for it any more. */
  unload(): void {
    this.lane.load -= this.#blocks;
    this.#blocks = 0;
  }

  /** The request needs the engine no more. */
  end(): void {
    this.unload();
    this.#stays = undefined;
    clearTimeout(this.#timer);
    this.#request.removeEventListener('abort', this.#leave);
    this.instance.flights.delete(this);
    this.#fleet.drained(this.instance);
  }
}
