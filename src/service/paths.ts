/** Where the service listens, and whether somebody does already. */
import { lstatSync, rmSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { errors, MooncakeError } from '../core/errors.js';
import { makeFolder } from '../folders.js';

/** Of a Unix socket's path, with the end of the descriptor socket's (sockaddr_un, 108 bytes with a zero behind it). */
const MAX_PATH_BYTES = 107;
export const DESCRIPTOR_SUFFIX = '.fd';
const ASK_MS = 2000;

/** `MOONCAKE_TS_SERVICE`, or a socket in a folder of this user's. */
export function defaultSocket(environment: NodeJS.ProcessEnv = process.env): string {
  const { MOONCAKE_TS_SERVICE: named, XDG_RUNTIME_DIR: runtime } = environment;
  if (named) return named;
  return runtime && isAbsolute(runtime) ? join(runtime, 'mooncake-ts', 'service.sock') : sharedSocket();
}

/** In a folder where anybody may have been first. */
function sharedSocket(): string {
  return `/tmp/mooncake-ts-${process.geteuid?.() ?? 0}/service.sock`;
}

/** Why a service of user `uid` is not to be given the KV cache: it is neither one's own nor root's. Root may name another's. */
export function distrust(path: string, uid: number): MooncakeError | undefined {
  const own = process.geteuid?.() ?? uid;
  if (uid === 0 || uid === own || (own === 0 && path !== sharedSocket())) return undefined;
  const message = `socket: the service at ${path} is user ${uid}'s, not user ${own}'s: it would be given the KV cache`;
  return new MooncakeError('ERR_INVALID_ARGUMENT', message);
}

/**
 * The path, ready to be listened on: its folder is there, and what a dead service has left is not. Throws
 * ERR_INVALID_ARGUMENT where the path cannot be one, belongs to others, or to a service that lives.
 */
export async function claimSocket(given: string): Promise<string> {
  const path = resolve(given);
  if (Buffer.byteLength(path + DESCRIPTOR_SUFFIX) > MAX_PATH_BYTES) {
    throw errors.invalidArgument(
      'socket',
      path,
      `a path of at most ${MAX_PATH_BYTES - DESCRIPTOR_SUFFIX.length} bytes`,
    );
  }
  ownFolder(dirname(path));
  for (const one of [path, path + DESCRIPTOR_SUFFIX]) {
    const there = lstatSync(one, { throwIfNoEntry: false });
    if (there === undefined) continue;
    if (!there.isSocket()) throw errors.invalidArgument('socket', one, 'no file of another kind');
    // The other socket is whose this one is.
    if (one === path && (await answers(path))) {
      throw errors.invalidArgument('socket', path, 'a path on which no other service listens');
    }
    rmSync(one, { force: true });
  }
  return path;
}

/** A folder that others can write to could give engines another service's socket. */
function ownFolder(folder: string): void {
  try {
    makeFolder(folder, 0o700);
  } catch (cause) {
    throw errors.invalidArgument('socket', folder, `in a folder that can be made (${(cause as Error).message})`);
  }
  const { uid, mode } = statSync(folder);
  const open = (mode & 0o002) !== 0 && (mode & 0o1000) === 0;
  const others = uid !== process.geteuid?.() && uid !== 0;
  if (open || others)
    throw errors.invalidArgument('socket', folder, 'in a folder of this user, to which others do not write');
}

function answers(path: string): Promise<boolean> {
  return new Promise((done) => {
    const socket = connect(path);
    const end = (lives: boolean) => {
      clearTimeout(timer);
      socket.destroy();
      done(lives);
    };
    // One that does not even take a connection is alive and busy.
    const timer = setTimeout(() => end(true), ASK_MS);
    socket.once('connect', () => end(true));
    socket.once('error', (error: NodeJS.ErrnoException) =>
      end(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT'),
    );
  });
}
