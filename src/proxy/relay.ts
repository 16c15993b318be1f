/**
 * The way of an engine's answer to the client: its bytes as they come, no faster than the client reads them, and a bound on
 * how long nothing may move. Of an event stream the client gets whole events only, so that one that breaks off can be ended
 * with an event that says so.
 */
import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { errors, type MooncakeError } from '../core/errors.js';
import { errorBody } from './answers.js';
import type { Visit } from './visit.js';
import { WholeEvents } from './whole-events.js';

/** Headers of one connection, not of the message (RFC 9110, 7.6.1). */
const HOP_BY_HOP = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

/** End-to-end headers, without those that `Connection` names. */
export function endToEnd(headers: Readonly<Record<string, string | string[] | undefined>>): OutgoingHttpHeaders {
  const named = String(headers.connection ?? '')
    .toLowerCase()
    .split(/\s*,\s*/);
  const kept: OutgoingHttpHeaders = {};
  for (const name in headers) {
    if (!HOP_BY_HOP.has(name) && !named.includes(name)) kept[name] = headers[name];
  }
  return kept;
}

/** The first bytes of a body; undefined for an empty one. @throws ERR_PEER */
export function firstChunk(upstream: IncomingMessage, visit: Visit): Promise<Buffer | undefined> {
  return new Promise((resolve, reject) => {
    const done = (settle: () => void) => {
      upstream.off('data', onData).off('end', onEnd).off('error', onError).off('close', onClose);
      settle();
    };
    const onData = (chunk: Buffer) => {
      upstream.pause();
      done(() => resolve(chunk));
    };
    const onEnd = () => done(() => resolve(undefined));
    const onError = (error: Error) => done(() => reject(brokenOff(visit, error)));
    const onClose = () => onError(new Error('closed'));
    upstream.on('data', onData).on('end', onEnd).on('error', onError).on('close', onClose);
  });
}

/** What ended a visit early, in the proxy's words. */
export function brokenOff(visit: Visit, error: Error): MooncakeError {
  if (visit.signal.aborted) return visit.signal.reason as MooncakeError;
  return errors.peer(visit.instance.name, `its answer broke off (${error.message})`, error);
}

export interface RelayOptions {
  readonly visit: Visit;
  /** Longest time in which neither side moves, in ms. */
  readonly idleMs: number;
  onBytes(bytes: number): void;
}

/**
 * Passes the rest of an answer on, whose head is sent and whose first bytes are `first`. Resolves when the client has it all.
 * @throws ERR_PEER, ERR_TIMEOUT, ERR_ABORTED after ending the client's stream as well as can be
 */
export async function relay(
  upstream: IncomingMessage,
  first: Buffer | undefined,
  client: ServerResponse,
  options: RelayOptions,
): Promise<void> {
  const isEvents = /^text\/event-stream\b/i.test(upstream.headers['content-type'] ?? '');
  try {
    await pass(upstream, first, client, isEvents, options);
  } catch (error) {
    if (!client.destroyed) {
      // The client must not take a part for the whole.
      if (isEvents && !client.writableEnded) endWith(client, error, options.idleMs);
      else client.destroy();
    }
    throw error;
  }
}

/** Ends an event stream with an event that says why. A client that does not take it in `patienceMs` is let go. */
function endWith(client: ServerResponse, error: unknown, patienceMs: number): void {
  const timer = setTimeout(() => client.destroy(), patienceMs).unref();
  client.once('close', () => clearTimeout(timer));
  client.end(`data: ${JSON.stringify(errorBody(error, 502))}\n\n`);
}

function pass(
  upstream: IncomingMessage,
  first: Buffer | undefined,
  client: ServerResponse,
  isEvents: boolean,
  { visit, idleMs, onBytes }: RelayOptions,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const events = isEvents ? new WholeEvents() : undefined;
    const { signal } = visit;
    const idle = setTimeout(
      () => visit.fail(errors.timeout(`a pause of the answer of ${visit.instance.name}`, idleMs)),
      idleMs,
    );
    const settle = (finish: () => void) => {
      clearTimeout(idle);
      upstream.off('data', onData).off('end', onEnd).off('error', fail).off('close', onClose);
      client.off('drain', onDrain).off('finish', onFinish);
      signal.removeEventListener('abort', onAbort);
      upstream.on('error', () => {});
      finish();
    };
    const fail = (error: Error) =>
      settle(() => {
        upstream.destroy();
        reject(brokenOff(visit, error));
      });
    const onAbort = () => fail(signal.reason);
    const onClose = () => fail(new Error('closed'));
    const onDrain = () => {
      idle.refresh();
      upstream.resume();
    };
    const onFinish = () => settle(resolve);
    const write = (bytes: Buffer | undefined) => {
      if (bytes === undefined) return;
      onBytes(bytes.length);
      if (!client.write(bytes)) upstream.pause();
    };
    const onData = (chunk: Buffer) => {
      idle.refresh();
      visit.instance.heardAt = performance.now();
      write(events === undefined ? chunk : events.push(chunk));
    };
    const onEnd = () => {
      write(events?.rest());
      upstream.off('close', onClose);
      client.once('finish', onFinish);
      client.end();
    };
    client.on('drain', onDrain);
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) return onAbort();
    if (first !== undefined) onData(first);
    if (upstream.readableEnded) return onEnd();
    upstream.on('end', onEnd).on('error', fail).on('close', onClose).on('data', onData);
    if (!client.writableNeedDrain) upstream.resume();
    else upstream.pause();
  });
}
