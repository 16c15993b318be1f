/** The first frame of each side: who it is and what it takes. */
import { errors } from '../../core/errors.js';
import { pack, unpack } from '../messages.js';
import { readEndpoints } from '../metadata/descriptor.js';
import type { Json } from '../metadata/json.js';
import type { EngineHello } from './accelerator.js';

export interface Hello {
  /** 16 hex digits. */
  generation: string;
  /** Where the sender listens. */
  address: string;
  /** The largest control frame that the sender takes, in bytes. */
  maxFrameBytes: number;
  /** The sender lets no more than this pass without sending something. */
  heartbeatMs: number;
  /** Where the sender has the accelerator in use: how its engine is reached. */
  engine?: EngineHello;
}

/** What a hello may have at most. */
export const HELLO_BYTES = 4096;
export const MIN_FRAME_BYTES = 64 * 1024;
export const MAX_FRAME_BYTES = 2 ** 30;
export const MAX_HEARTBEAT_MS = 60_000;

const GENERATION = /^[0-9a-f]{16}$/;

export function packHello(hello: Hello): Uint8Array {
  return pack('hello', { ...hello }, HELLO_BYTES);
}

/** Throws ERR_PROTOCOL. */
export function unpackHello(payload: Uint8Array): Hello {
  const hello = unpack(payload) as Partial<Hello> | null;
  const whole = (value: unknown, min: number, max: number) =>
    typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max;
  if (
    typeof hello !== 'object' ||
    hello === null ||
    typeof hello.generation !== 'string' ||
    !GENERATION.test(hello.generation) ||
    typeof hello.address !== 'string' ||
    !whole(hello.maxFrameBytes, MIN_FRAME_BYTES, MAX_FRAME_BYTES) ||
    !whole(hello.heartbeatMs, 1, MAX_HEARTBEAT_MS)
  ) {
    throw errors.protocol('a hello without generation, address or limits', hello);
  }
  const { engine, ...others } = hello as Hello;
  return engine === undefined ? others : { ...others, engine: readEngine(engine) };
}

function readEngine(engine: unknown): EngineHello {
  const { generation, endpoints } = (engine ?? {}) as Partial<EngineHello>;
  if (typeof generation !== 'string' || !GENERATION.test(generation)) {
    throw errors.protocol('a hello with an engine of no generation', engine);
  }
  return { generation, endpoints: readEndpoints('engine.endpoints', endpoints as Json | undefined) };
}
