/**
 * A peer that TypeScript reaches by Mooncake's data stream: a few lanes, and the batches that share them in turn. A request
 * whose lane was closed by the peer between two requests, as idle connections are, goes to another lane once.
 */
import { errors, type MooncakeError } from '../../core/errors.js';
import { watch } from '../limits.js';
import type { Move } from '../move-options.js';
import { hold, type SegmentTable } from '../segments.js';
import type { MoveReport } from '../transfer.js';
import type { LinkStatistics, TransferBatch } from './api.js';
import type { PeerPlaces, RemoteRange } from './plane.js';
import { Lane, type LanePlace } from './portable-lane.js';
import { type LaneRequest, Requests } from './portable-requests.js';

const MAX_BATCHES = 8192;

interface Batch {
  requests: Requests;
  /** To be sent once more. */
  again: LaneRequest[];
  running: Set<Lane>;
  finish(error?: unknown): void;
}

export class PortablePeer {
  readonly #place: LanePlace;
  readonly #ours: SegmentTable;
  readonly #streams: number;
  #segments = new Map<number, RemoteRange>();
  readonly #lanes = new Set<Lane>();
  /** Those that have requests to hand out; the first is next. */
  #queue: Batch[] = [];
  readonly #batches = new Set<Batch>();
  #closed?: MooncakeError;
  readonly #counts = { slices: 0, bytes: 0, failures: 0, inFlightBytes: 0, bandwidth: 0 };

  constructor(places: PeerPlaces, ours: SegmentTable, streams: number) {
    const { name, data, generation } = places;
    if (!data)
      throw errors.notSupported(`peer ${name}`, 'it has no TCP data port, and the accelerator is not used here');
    this.#place = { name, ...data, generation };
    this.#ours = ours;
    this.#streams = streams;
  }

  setSegments(segments: RemoteRange[]): void {
    this.#segments = new Map(segments.map((segment) => [segment.id, segment]));
  }

  get statistics(): LinkStatistics {
    const { name, host, port } = this.#place;
    const alive = this.#lanes.size > 0;
    const detail = `TypeScript, Mooncake's data stream version ${this.#place.version}, ${this.#lanes.size} lanes open`;
    return { peer: name, transport: 'tcp', name: `tcp ${host}:${port}`, alive, detail, ...this.#counts };
  }

  submit(write: boolean, { descriptors, limits }: Move, onEnd: (error?: unknown) => void): TransferBatch {
    if (this.#closed) throw this.#closed;
    if (this.#batches.size >= MAX_BATCHES) throw errors.queueFull(MAX_BATCHES);
    const requests = new Requests(write, descriptors, this.#ours, (id) => this.#segments.get(id));
    const release = hold(requests.segments);
    const started = performance.now();
    let finish!: (error?: unknown) => void;
    const done = new Promise<MoveReport>((resolve, reject) => {
      finish = (error) => {
        if (!this.#batches.delete(batch)) return;
        stop();
        this.#queue = this.#queue.filter((queued) => queued !== batch);
        // What these lanes still carry must touch no memory any more.
        for (const lane of batch.running) lane.close(error as MooncakeError);
        release();
        onEnd(error);
        if (error === undefined) {
          resolve({ bytes: requests.bytes, verifiedBytes: 0, milliseconds: performance.now() - started });
        } else reject(error);
      };
    });
    const batch: Batch = { requests, again: [], running: new Set(), finish };
    this.#batches.add(batch);
    const stop = watch(`the move ${write ? 'to' : 'from'} ${this.#place.name}`, limits, finish);
    this.#queue.push(batch);
    this.#pump();
    return { done, cancel: () => finish(errors.aborted()) };
  }

  close(error: MooncakeError): void {
    if (this.#closed) return;
    this.#closed = error;
    for (const batch of [...this.#batches]) batch.finish(error);
    for (const lane of this.#lanes) lane.close(error);
  }

  /** Gives requests to lanes as long as there are both, a batch at a time in turn. */
  #pump(): void {
    while (this.#queue.length > 0 && !this.#closed) {
      const idle = [...this.#lanes].find((lane) => lane.idle);
      if (!idle && this.#lanes.size >= this.#streams) return;
      const batch = this.#queue.shift()!;
      const request = batch.again.pop() ?? batch.requests.next();
      if (!request) {
        // Everything is on its way; the last request to arrive ends the batch.
        if (batch.running.size === 0) batch.finish();
        continue;
      }
      this.#queue.push(batch);
      this.#run(batch, request, idle);
    }
  }

  async #run(batch: Batch, request: LaneRequest, idle: Lane | undefined): Promise<void> {
    const lane = idle ?? this.#open();
    const started = performance.now();
    batch.running.add(lane);
    this.#counts.inFlightBytes += request.size;
    request.attempts++;
    try {
      await lane.run(request);
      batch.running.delete(lane);
      this.#count(request.size, performance.now() - started);
      if (!this.#queue.includes(batch) && this.#batches.has(batch)) this.#queue.push(batch);
    } catch (error) {
      batch.running.delete(lane);
      this.#counts.failures++;
      const again = idle && request.attempts === 1 && (error as MooncakeError).code === 'ERR_PEER';
      if (!again || !this.#batches.has(batch)) batch.finish(error);
      else {
        batch.again.push(request);
        if (!this.#queue.includes(batch)) this.#queue.push(batch);
      }
    } finally {
      this.#counts.inFlightBytes -= request.size;
    }
    this.#pump();
  }

  #count(bytes: number, milliseconds: number): void {
    this.#counts.slices++;
    this.#counts.bytes += bytes;
    const bandwidth = (1000 * bytes) / Math.max(milliseconds, 0.001);
    this.#counts.bandwidth += (bandwidth - this.#counts.bandwidth) / (this.#counts.slices === 1 ? 1 : 8);
  }

  #open(): Lane {
    const lane = new Lane(this.#place, () => {
      this.#lanes.delete(lane);
      this.#pump();
    });
    this.#lanes.add(lane);
    return lane;
  }
}
