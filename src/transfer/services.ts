/** Handlers by name, and the requests of one peer that they are answering. */
import { string } from '../core/check.js';
import { errors, type MooncakeError } from '../core/errors.js';
import type { Peer, RequestContext, RequestHandler } from './transfer.js';

/** Names that begin so are the transfer's own. */
export const RESERVED = 'transfer.';

export class Services {
  readonly #handlers = new Map<string, RequestHandler>();

  serve(service: string, handler: RequestHandler): () => void {
    string('service', service);
    if (service === '' || service.startsWith(RESERVED) || this.#handlers.has(service)) {
      throw errors.invalidArgument('service', service, `a name that is not served yet and not "${RESERVED}…"`);
    }
    if (typeof handler !== 'function') throw errors.invalidArgument('handler', handler, 'a function');
    this.#handlers.set(service, handler);
    return () => {
      if (this.#handlers.get(service) === handler) this.#handlers.delete(service);
    };
  }

  /** A service of the transfer's own. */
  serveOwn(service: string, handler: RequestHandler): void {
    this.#handlers.set(service, handler);
  }

  async answer(service: string, message: unknown, context: RequestContext): Promise<unknown> {
    // Never within the call or the frame that asks: the handler may close the peer.
    await undefined;
    const handler = this.#handlers.get(service);
    if (!handler) throw errors.notSupported(`service ${service}`, 'the peer serves none of that name');
    return handler(message, context);
  }
}

/** Requests being answered for one peer. Each is settled once: by its handler, by the peer giving up, or by its end. */
export class Answering {
  readonly #running = new Map<number, (error: MooncakeError) => void>();
  readonly #services: Services;
  readonly #limit: number;

  constructor(services: Services, limit: number) {
    this.#services = services;
    this.#limit = limit;
  }

  /** Runs the handler; rejects at once, whatever the handler does, when the request is cancelled. */
  run(id: number, service: string, message: unknown, peer: Peer): Promise<unknown> {
    if (this.#running.size >= this.#limit) return Promise.reject(errors.queueFull(this.#limit));
    const controller = new AbortController();
    return new Promise((resolve, reject) => {
      this.#running.set(id, (error) => {
        this.#running.delete(id);
        reject(error);
        controller.abort(error);
      });
      const settle = (finish: () => void) => {
        this.#running.delete(id);
        finish();
      };
      this.#services.answer(service, message, { peer, signal: controller.signal }).then(
        (answer) => settle(() => resolve(answer)),
        (error) => settle(() => reject(error)),
      );
    });
  }

  has(id: number): boolean {
    return this.#running.has(id);
  }

  cancel(id: number, error: MooncakeError): void {
    this.#running.get(id)?.(error);
  }

  /** The peer is gone: every handler's signal fires. */
  end(error: MooncakeError): void {
    for (const cancel of [...this.#running.values()]) cancel(error);
  }
}
