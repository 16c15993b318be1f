/** The calls of the control socket, by name (docs/service.md has what they take and answer). */
import { integer, string } from '../core/check.js';
import { errors } from '../core/errors.js';
import { type Fields, MOST } from './arguments.js';
import type { Caller } from './caller.js';
import { readAttach } from './spec.js';

/** What is thrown, or rejected with, is the answer's error. */
export type Operation = (caller: Caller, args: Fields) => unknown;

export const PROTOCOL = 1;
/** What a service with the accelerator takes beyond the first ones of this protocol. Clients ask for it by name. */
export const FEATURES = ['cuda-vmm-fd', 'gpu-events'] as const;

export interface Greeting {
  readonly version: string;
  readonly instance: string;
  /** Where descriptors are handed over; null without the accelerator. */
  readonly descriptors: string | null;
}

const nothing = async (done: Promise<unknown>) => {
  await done;
  return null;
};

/** `status` answers the call of that name. */
export function operations(greeting: Greeting, status: () => unknown): ReadonlyMap<string, Operation> {
  return new Map<string, Operation>([
    ['hello', (caller, args) => hello(greeting, caller, args)],
    ['status', status],
    ['detach', (caller, args) => nothing(caller.engines.detach(caller.opened(args).engine))],

    ['scheduler.attach', attachScheduler],
    ['scheduler.request', (caller, args) => caller.scheduler(args).request(args)],
    ['scheduler.matched', (caller, args) => caller.scheduler(args).matched(args)],
    ['scheduler.allocated', (caller, args) => caller.scheduler(args).allocated(args)],
    ['scheduler.step', (caller, args) => caller.scheduler(args).step(args)],
    ['scheduler.output', (caller, args) => caller.scheduler(args).output(args)],
    ['scheduler.finished', (caller, args) => caller.scheduler(args).finished(args)],
    ['scheduler.stats', (caller, args) => caller.scheduler(args).stats()],
    ['scheduler.reset', (caller, args) => reset(caller, args)],
    ['scheduler.handshake', (caller, args) => caller.scheduler(args).handshake(args)],

    ['worker.attach', attachWorker],
    ['worker.register', register],
    ['worker.step', (caller, args) => caller.worker(args).step(args)],
    ['worker.layerLoad', (caller, args) => nothing(caller.worker(args).layerLoad(args))],
    ['worker.layerSaved', (caller, args) => caller.worker(args).layerSaved(args)],
    ['worker.saved', (caller, args) => nothing(caller.worker(args).saved())],
    ['worker.finished', (caller, args) => caller.worker(args).finished(args)],
    ['worker.stats', (caller, args) => caller.worker(args).stats()],
  ]);
}

function hello({ version, instance, descriptors }: Greeting, caller: Caller, args: Fields) {
  if (args.protocol !== PROTOCOL) throw errors.version('protocol', args.protocol, PROTOCOL);
  string('client', args.client);
  const pid = integer('pid', args.pid, 0, MOST);
  if (caller.pid === 0) caller.pid = pid;
  caller.greeted = true;
  return { protocol: PROTOCOL, version, instance, descriptors, features: descriptors === null ? [] : FEATURES };
}

async function attachScheduler(caller: Caller, args: Fields) {
  const spec = readAttach(args);
  const [engine, session] = await caller.engines.attachScheduler(spec, caller.pid, () => !caller.ended);
  caller.open(engine, session);
  return { session: session.id, generation: engine.generation };
}

async function attachWorker(caller: Caller, args: Fields) {
  const spec = readAttach(args);
  const rank = integer('rank', args.rank, 0, MOST);
  const [engine, session] = await caller.engines.attachWorker(spec, rank, caller.pid, () => !caller.ended);
  caller.open(engine, session);
  return { session: session.id, generation: engine.generation };
}

async function reset(caller: Caller, args: Fields) {
  caller.scheduler(args);
  return { removed: await caller.opened(args).engine.reset() };
}

function register(caller: Caller, args: Fields) {
  const session = caller.worker(args);
  const { engine } = caller.opened(args);
  try {
    session.register(args);
  } catch (error) {
    // Peers may read memory that is registered: it stays mapped until the halves have let go of it.
    if (session.spoiled) void caller.engines.end(engine, 'its memory was refused');
    throw error;
  }
  const handshake = session.encoded();
  caller.engines.link(engine);
  return { handshake };
}
