/** A request at an engine: the load it puts there, and the way to end it when the client leaves or the engine dies. */
import type { MooncakeError } from '../core/errors.js';
import type { Fleet } from './fleet.js';
import type { Flight, Instance, Lane } from './instance.js';
import { reasonOf } from './upstream.js';

export class Visit implements Flight {
  readonly lane: Lane;
  readonly #fleet: Fleet;
  readonly #controller = new AbortController();
  readonly #request: AbortSignal;
  readonly #leave = () => this.fail(reasonOf(this.#request));
  #blocks: number;

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
    this.#request.removeEventListener('abort', this.#leave);
    this.instance.flights.delete(this);
    this.#fleet.drained(this.instance);
  }
}
