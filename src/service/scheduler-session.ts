/** A scheduler half and its requests, as calls of the control socket reach them. */
import type {
  CachedRequestData,
  ConnectorStats,
  KvTransferParams,
  NewRequestData,
  SchedulerConnector,
} from '../connector/api.js';
import { string } from '../core/check.js';
import { MooncakeError, show } from '../core/errors.js';
import { blockIds, blocks, count, extraKeys, type Fields, list, params, record, strings } from './arguments.js';
import { decodeHandshake, encodeMeta, type Handshake, hasWork, type Run } from './envelope.js';
import { ServiceRequest, tokensOf } from './requests.js';
import { type Failure, Session } from './session.js';

export interface StepAnswer {
  /** Nil: workers have nothing to do. */
  readonly meta: Uint8Array | null;
  readonly pending: boolean;
  readonly errors: readonly Failure[];
}

export class SchedulerSession extends Session {
  readonly #half: SchedulerConnector;
  readonly #requests = new Map<string, ServiceRequest>();
  /** Of each rank, the run that its handshake named. */
  #runs: readonly Run[] = [];

  constructor(id: number, run: Run, pid: number, half: SchedulerConnector) {
    super(id, run, pid);
    this.#half = half;
  }

  get requests(): number {
    return this.#requests.size;
  }

  /** The worker halves of every rank, in order. Throws where they do not fit together. */
  link(handshakes: readonly Handshake[]): void {
    this.#half.setHandshakeMetadata(handshakes.map(({ data }) => data));
    this.#runs = handshakes.map(({ run }) => run);
  }

  handshake(args: Fields): null {
    const all = list('metadata', args.metadata).map((one, index) => decodeHandshake(`metadata[${index}]`, one));
    this.link(all.sort((a, b) => a.rank - b.rank));
    return null;
  }

  request(args: Fields): null {
    const id = string('id', args.id);
    const tokens = tokensOf('tokens', args.tokens);
    const request = new ServiceRequest(
      id,
      count('prompt', args.prompt ?? tokens.length),
      tokens,
      extraKeys('extraKeys', args.extraKeys),
      params('params', args.params),
    );
    this.#requests.set(id, request);
    this.#half.onNewRequest(request);
    return null;
  }

  matched(args: Fields): [number | null, boolean] {
    const request = this.#known(args);
    return this.#half.getNumNewMatchedTokens(request, count('computed', args.computed));
  }

  allocated(args: Fields): null {
    const request = this.#known(args);
    this.#half.updateStateAfterAlloc(request, blocks('blocks', args.blocks), count('external', args.external));
    return null;
  }

  step(args: Fields): StepAnswer {
    const newRequests = list('new', args.new).map((one, index): NewRequestData => {
      const data = this.#grown(`new[${index}]`, one);
      return {
        requestId: string('id', data.id),
        blockIds: blocks('blocks', data.blocks),
        numComputedTokens: count('computed', data.computed),
        resumed: data.resumed === true,
      };
    });
    const cachedRequests = list('cached', args.cached).map((one, index): CachedRequestData => {
      const data = this.#grown(`cached[${index}]`, one);
      return {
        requestId: string('id', data.id),
        newBlockIds: blocks('blocks', data.blocks),
        numComputedTokens: count('computed', data.computed),
      };
    });
    const finishedRequestIds = strings('finished', args.finished);
    const meta = this.#half.buildConnectorMeta({
      newRequests,
      cachedRequests,
      numScheduledTokens: record('scheduled', args.scheduled ?? {}) as Record<string, number>,
      finishedRequestIds,
      preemptedRequestIds: strings('preempted', args.preempted),
    });
    for (const id of finishedRequestIds) this.#requests.delete(id);
    return {
      meta: hasWork(meta) ? encodeMeta(this.#runs, meta) : null,
      pending: this.#half.hasPendingWork(),
      errors: this.takeFailures(),
    };
  }

  output(args: Fields): null {
    this.#half.updateConnectorOutput({
      finishedSending: strings('sending', args.sending),
      finishedReceiving: strings('receiving', args.receiving),
      invalidBlockIds: blockIds('invalid', args.invalid),
    });
    return null;
  }

  /** A request that is not known (any more) keeps nothing. */
  finished(args: Fields): [boolean, KvTransferParams | null] {
    const id = string('id', args.id);
    const request = this.#requests.get(id);
    if (request === undefined) return [false, null];
    this.#grow(request, args);
    const answer = this.#half.requestFinished(request, blocks('blocks', args.blocks));
    this.#requests.delete(id);
    return answer;
  }

  stats(): ConnectorStats {
    return this.#half.stats();
  }

  shutdown(): Promise<void> {
    this.#requests.clear();
    return this.#half.shutdown();
  }

  #grow(request: ServiceRequest, args: Fields): void {
    request.append(tokensOf('append', args.append), extraKeys('extraKeys', args.extraKeys));
  }

  #known(args: Fields): ServiceRequest {
    const id = string('id', args.id);
    const request = this.#requests.get(id);
    if (request === undefined) {
      throw new MooncakeError('ERR_NOT_FOUND', `request ${show(id)} was not announced, or has ended`, {
        argument: 'id',
        value: id,
      });
    }
    this.#grow(request, args);
    return request;
  }

  /** An entry of a step; the tokens that it brings are the request's. */
  #grown(argument: string, value: unknown): Fields {
    const data = record(argument, value);
    const request = this.#requests.get(string(`${argument}.id`, data.id));
    if (request !== undefined) this.#grow(request, data);
    return data;
  }
}
