/**
 * The thread that holds a client's connection (client-threaded.ts): it passes calls on and answers back, and rings a bell in
 * shared memory for a caller that waits without returning to its event loop.
 */
import { statSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { type MessagePort, workerData } from 'node:worker_threads';
import { loadAddon } from '../native/load.js';
import type { FromService, ToService } from './client-channel.js';
import { decodeFrame, encodeFrame, FrameReader } from './frames.js';
import { distrust } from './paths.js';

/** What the thread is started with. */
export interface ClientThreadData {
  readonly socket: string;
  readonly port: MessagePort;
  /** An Int32 that grows with each message to the caller. */
  readonly bell: SharedArrayBuffer;
}

const { socket: path, port, bell } = workerData as ClientThreadData;
const ring = new Int32Array(bell);
const frames = new FrameReader();
const socket = connect({ path, allowHalfOpen: true });
let why = { code: 'ERR_PEER', message: `the service at ${path} has ended the connection` };
let ended = false;

function tell(message: FromService): void {
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
  const error = distrust(path, ownerOf(socket));
  if (error === undefined) return;
  why = { code: error.code, message: error.message };
  socket.destroy();
});
socket.on('data', (chunk) => {
  try {
    for (const frame of frames.push(chunk)) tell(decodeFrame(frame) as FromService);
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
// `null` ends our side of the connection.
port.on('message', (message: ToService | null) => {
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
