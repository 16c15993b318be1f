/** Moves to and from GPUs of a peer, by windows of its pinned memory that it fills and empties (serving.ts). */
import { errors } from '../../core/errors.js';
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
  const taken = async (request: DeviceRequest): Promise<DeviceAnswer> => {
    const { window, segment } = ((await ask(request)) ?? {}) as Partial<DeviceAnswer>;
    if (typeof window !== 'number' || typeof segment !== 'number') throw errors.protocol('no window of a GPU', window);
    return { window, segment };
  };
  const carried = async (part: Part, { window, segment }: DeviceAnswer) => {
    try {
      return await carry({ ...move, descriptors: part.carried(side, segment, 0), limits: left() });
    } catch (error) {
      // Where the peer does not hear of it, it takes the window away after a while.
      owner.call(DEVICES, { op: 'drop', window }, { timeoutMs: DROP_MS }).catch(() => {});
      throw error;
    }
  };
  const read = async (part: Part) => {
    const descriptors = part.copies(side, 0, 0, (segment) => segment).bytes;
    const answer = await taken({ op: 'fetch', descriptors });
    const moved = await carried(part, answer);
    await ask({ op: 'release', window: answer.window });
    return moved;
  };
  const write = async (part: Part) => {
    const answer = await taken({ op: 'take' });
    const { window } = answer;
    const moved = await carried(part, answer);
    await ask({ op: 'land', window, descriptors: part.copies(side, 0, 0, (each) => each).bytes });
    return moved;
  };
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
