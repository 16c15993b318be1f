/**
 * The thread that holds a client's connection (client-bridge.ts): it passes calls on and answers back, and rings a bell in
 * shared memory for a caller that waits without returning to its event loop.
 */
import { statSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { type MessagePort, workerData } from 'node:worker_threads';
import { loadAddon } from '../native/load.js';
import { decodeFrame, encodeFrame, FrameReader } from './frames.js';
import { isTrusted } from './paths.js';

/** What the thread is started with. */
export interface ClientThreadData {
  readonly socket: string;
  readonly port: MessagePort;
  /** An Int32 that grows with each message to the caller. */
  readonly bell: SharedArrayBuffer;
}

/** `[id, op, args]` to the thread, `null` to end our side of the connection. */
export type ToThread = readonly [id: number, op: string, args: object] | null;

/** An answer; id -1: the connection has ended, and nothing comes any more. */
export type FromThread = readonly [id: number, error: { code: string; message: string } | null, result: unknown];

const { socket: path, port, bell } = workerData as ClientThreadData;
const ring = new Int32Array(bell);
const frames = new FrameReader();
const socket = connect({ path, allowHalfOpen: true });
let why = { code: 'ERR_PEER', message: `the service at ${path} has ended the connection` };
let ended = false;

function tell(message: FromThread): void {
  port.postMessage(message);
  Atomics.add(ring, 0, 1);
  Atomics.notify(ring, 0);
}

/** The user whose process listens, by the kernel's word; without the accelerator that of the socket's file. */
function ownerOf(client: Socket): number {
  const { addon } = loadAddon();
  const fd = (client as Socket & { _handle?: { fd?: number } | null })._handle?.fd;
  return addon !== undefined && fd !== undefined && fd >= 0 ? addon.peerCredentials(fd).uid : statSync(path).uid;
}

function end(): void {
  if (ended) return;
  ended = true;
  tell([-1, why, null]);
  port.close();
}

socket.on('connect', () => {
  const owner = ownerOf(socket);
  if (isTrusted(path, owner)) return;
  const message = `socket: the service at ${path} is user ${owner}'s, not user ${process.geteuid?.()}'s: it would be given the KV cache`;
  why = { code: 'ERR_INVALID_ARGUMENT', message };
  socket.destroy();
});
socket.on('data', (chunk) => {
  try {
    for (const frame of frames.push(chunk)) tell(decodeFrame(frame) as FromThread);
  } catch (error) {
    why = { code: 'ERR_PROTOCOL', message: `the service at ${path}: ${(error as Error).message}` };
    socket.destroy();
  }
});
socket.on('error', (error) => {
  why = { code: 'ERR_PEER', message: `the service at ${path}: ${error.message}` };
});
socket.on('end', () => socket.end());
socket.on('close', end);

let corked = false;
port.on('message', (message: ToThread) => {
  if (message === null) {
    socket.end();
    return;
  }
  // What is posted in one turn of the caller goes out in one write.
  if (!corked) {
    corked = true;
    socket.cork();
    process.nextTick(() => {
      corked = false;
      socket.uncork();
    });
  }
  socket.write(encodeFrame(message));
});
