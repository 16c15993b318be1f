/**
 * The accelerator's NICs: what it announces of them, the connections that peers ask of them and they of peers, and the keys with
 * which they reach segments. Handshakes go by the engine's names; the accelerator knows what is in them.
 */
import { errors } from '../../core/errors.js';
import { type Endpoint, type ExposeDone, NATIVE_CODES, type NativeEngine, type Settings } from '../../native/addon.js';
import { formatConnection, parseConnection } from '../metadata/connection.js';
import type { RdmaDevice, SegmentKeys } from '../metadata/descriptor.js';
import { attempt, failure, fromNative } from './native-errors.js';
import type { PeerPlaces } from './plane.js';

/** Carries the text of a connection's handshake to a peer; its answer. */
export type CarryConnection = (peer: string, text: string) => Promise<string>;

export interface NicsOptions {
  /** Undefined: no RDMA, which needs it. */
  carry?: CarryConnection;
  /** Somebody asked for RDMA: what stands in its way is an error. */
  insists: boolean;
}

let warned = false;

/** That NICs do not take memory, or some of them: the same for all segments, mostly. */
function warnOnce(why: string, reached: string): void {
  if (warned) return;
  warned = true;
  process.emitWarning(why, {
    code: 'MOONCAKE_RDMA_REGISTRATION',
    detail: `it is reached ${reached}: see docs/rdma.md`,
  });
}

/** How a stock engine's NICs are reached. */
export function stockEndpoint({ server, devices }: NonNullable<PeerPlaces['rdma']>): Endpoint {
  const list = (key: 'name' | 'gid' | 'lid') => devices.map((device) => device[key]).join(',');
  const settings = { server, devices: list('name'), gids: list('gid'), lids: list('lid'), protocol: 'stock' };
  return { transport: 'rdma', settings };
}

export class Nics {
  /** Those that are open; none before `listen`. */
  devices: RdmaDevice[] = [];
  readonly #engine: NativeEngine;
  readonly #options: NicsOptions;
  #closed = false;

  constructor(engine: NativeEngine, options: NicsOptions) {
    this.#engine = engine;
    this.#options = options;
  }

  /** `server`: the engine's name. Throws only where somebody insists. */
  listen(server: string, settings: Settings | undefined): Endpoint[] {
    if (!this.#options.carry) return [];
    try {
      const found = this.#engine.listen('rdma', { ...settings, server });
      const [names, gids, lids] = [found.devices, found.gids, found.lids].map((list) => list.split(','));
      this.devices = names.map((name, at) => ({ name, gid: gids[at], lid: Number(lids[at]) }));
      return [{ transport: 'rdma', settings: found }];
    } catch (error) {
      if (this.#options.insists) throw fromNative('rdma', error);
      return [];
    }
  }

  /** A peer's NIC asks for a connection. Throws ERR_PROTOCOL. */
  accept(handshake: number, text: string): void {
    const request = parseConnection(text);
    if (request.ready_ack === 'true') {
      // It says that it is ready: an answer without content is expected.
      this.#engine.reply(handshake, formatConnection({}));
      return;
    }
    this.#engine.accept('rdma', request, (answer) => {
      if (!this.#closed) this.#engine.reply(handshake, formatConnection({ ready_ack: 'false', ...answer }));
    });
  }

  /** A NIC of ours asks a peer for one. */
  carry(shake: number, peer: string, request: Settings): void {
    this.#options.carry!(peer, formatConnection(request))
      .then(parseConnection)
      .catch((error: Error) => error.message)
      .then((answer) => {
        if (!this.#closed) this.#engine.shaken(shake, answer);
      });
  }

  /** Undefined where there are no NICs, or none takes the memory and nobody insists. `must`: an error in place of that. */
  async expose(segment: number, must: boolean): Promise<SegmentKeys | undefined> {
    if (this.devices.length === 0) {
      if (!must) return undefined;
      throw errors.notSupported(
        `segment ${segment}`,
        'it needs a NIC, and none is in use: see mooncake-ts doctor --rdma',
      );
    }
    try {
      return await new Promise<SegmentKeys>((resolve, reject) => {
        const done: ExposeDone = (code, local, remote, refusals) => {
          if (typeof local === 'string') return reject(failure(NATIVE_CODES[code], `segment ${segment}`, local));
          if (refusals) warnOnce(`segment ${segment}: ${refusals}`, 'by the other NICs');
          resolve({ local, remote: remote! });
        };
        attempt('a segment', () => this.#engine.expose('rdma', segment, done));
      });
    } catch (error) {
      if (must || this.#options.insists) throw error;
      warnOnce((error as Error).message, 'without RDMA');
      return undefined;
    }
  }

  /** Answers that come later are of no use. */
  close(): void {
    this.#closed = true;
  }
}
