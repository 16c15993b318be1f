/** Moves to and from GPUs of a peer, by windows of its pinned memory that it fills and empties (serving.ts). */
import { errors } from '../../core/errors.js';
import { MAX_TIMEOUT_MS, watch } from '../limits.js';
import type { Move } from '../move-options.js';
import type { CallLimits, MoveReport } from '../transfer.js';
import { Turns } from '../turns.js';
import { Gather } from './gather.js';
import { others, type Part, Records, touches } from './parts.js';
import { DEVICES, type DeviceAnswer, type DeviceRequest } from './serving.js';
import { remaining } from './staging.js';
import { FIRST_DEVICE, LAST_DEVICE, WINDOW_BYTES, waitFor } from './windows.js';

/** Windows of the peer's that one move holds at a time. */
const AT_ONCE = 3;
const DROP_MS = 5000;

export const isDeviceNumber = (segment: number) => segment >= FIRST_DEVICE && segment <= LAST_DEVICE;

/** Whether the peer's side of a move has memory of its GPUs. */
export function reachesDevices(kind: 'read' | 'write', { descriptors }: Move): boolean {
  return touches(descriptors, theirs(kind), isDeviceNumber);
}

function windowOf(answer: unknown): DeviceAnswer {
  const { window, segment } = (answer ?? {}) as Partial<DeviceAnswer>;
  if (typeof window !== 'number' || typeof segment !== 'number') throw errors.protocol('no window of a GPU', window);
  return { window, segment };
}

const theirs = (kind: 'read' | 'write') => (kind === 'read' ? 'source' : 'destination');

export interface DeviceOwner {
  call(service: string, message: unknown, limits?: CallLimits): Promise<unknown>;
}

/** `carry` moves between our segments and the peer's windows, which it verifies. Throws what it throws, and the peer. */
export async function moveRemote(
  owner: DeviceOwner,
  kind: 'read' | 'write',
  move: Move,
  carry: (move: Move) => Promise<MoveReport>,
): Promise<MoveReport> {
  const side = theirs(kind);
  const left = remaining(move.limits);
  const moves = new Gather();
  const ask = async (request: DeviceRequest) => owner.call(DEVICES, request, left());
  // Where the peer does not hear of it, it takes the window away after a while.
  const drop = ({ window }: DeviceAnswer) => {
    owner.call(DEVICES, { op: 'drop', window }, { timeoutMs: DROP_MS }).catch(() => {});
  };
  /** Who gives up while the peer is asked for a window does not know which one it gets: that is told when the answer comes. */
  const taken = (request: DeviceRequest): Promise<DeviceAnswer> => {
    const limits = left();
    const timeoutMs = Math.min(limits.timeoutMs + DROP_MS, MAX_TIMEOUT_MS);
    const asked = owner.call(DEVICES, request, { timeoutMs }).then(windowOf);
    return new Promise((resolve, reject) => {
      const stop = watch('a window of a GPU', limits, (error) => {
        asked.then(drop, () => {});
        reject(error);
      });
      asked.then(resolve, reject).finally(stop);
    });
  };
  /** A window is given back by what ends `work`, or here. */
  const holding = async <T>(request: DeviceRequest, work: (answer: DeviceAnswer) => Promise<T>): Promise<T> => {
    const answer = await taken(request);
    try {
      return await work(answer);
    } catch (error) {
      drop(answer);
      throw error;
    }
  };
  const carried = (part: Part, { segment }: DeviceAnswer) =>
    carry({ ...move, descriptors: part.carried(side, segment, 0), limits: left() });
  const read = (part: Part) => {
    const descriptors = part.copies(side, 0, 0, (segment) => segment).bytes;
    return holding({ op: 'fetch', descriptors }, async (answer) => {
      const moved = await carried(part, answer);
      await ask({ op: 'release', window: answer.window });
      return moved;
    });
  };
  const write = (part: Part) =>
    holding({ op: 'take' }, async (answer) => {
      const moved = await carried(part, answer);
      const descriptors = part.copies(side, 0, 0, (each) => each).bytes;
      await ask({ op: 'land', window: answer.window, descriptors });
      return moved;
    });
  const host = others(move.descriptors, side, isDeviceNumber);
  if (!host.isEmpty) moves.start(async () => carry({ ...move, descriptors: host.descriptors(), limits: left() }));
  const turns = new Turns(Array.from({ length: AT_ONCE }, (_, i) => i));
  const records = new Records(move.descriptors, side);
  try {
    while (!moves.failed) {
      const turn = await waitFor(turns, left());
      const part = records.part(isDeviceNumber, WINDOW_BYTES);
      if (part === undefined) break;
      moves.start(
        () => (kind === 'read' ? read(part) : write(part)),
        () => turns.give(turn),
      );
    }
  } catch (error) {
    moves.fail(error);
  }
  return moves.ended();
}
