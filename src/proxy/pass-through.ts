/** Requests that any engine can answer (`/v1/models`, `/tokenize`, `/detokenize`): asked of one, then of another. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { errors, MooncakeError } from '../core/errors.js';
import { readBody } from './answers.js';
import type { Parts } from './completions.js';
import { endToEnd, firstChunk, relay } from './relay.js';
import { neverArrived } from './upstream.js';
import { Visit } from './visit.js';

/** Answers within this or not at all. */
const DEADLINE_MS = 30_000;

export async function passThrough(
  { fleet, settings }: Parts,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(errors.timeout('the request', DEADLINE_MS)), DEADLINE_MS);
  response.once('close', () => {
    if (!response.writableFinished) controller.abort(errors.aborted('the client went away'));
  });
  try {
    const body = request.method === 'POST' ? await readBody(request, settings.maxBodyBytes) : undefined;
    const {
      host,
      'content-length': _,
      'accept-encoding': __,
      expect,
      'x-api-key': ___,
      ...headers
    } = endToEnd(request.headers);
    const lanes = [...fleet.lanes('decode'), ...fleet.lanes('prefill')];
    let last: MooncakeError = errors.noInstance(fleet.instances.length);
    for (const lane of new Map(lanes.map((one) => [one.instance, one])).values()) {
      const visit = new Visit(fleet, lane, 1, controller.signal);
      try {
        const call = { method: request.method!, path: request.url!, headers, body, signal: visit.signal };
        const answer = await lane.instance.upstream.call(call);
        const first = await firstChunk(answer, visit);
        response.writeHead(answer.statusCode ?? 502, endToEnd(answer.headers));
        return await relay(answer, first, response, { visit, idleMs: DEADLINE_MS, onBytes: () => {} });
      } catch (error) {
        if (!(error instanceof MooncakeError) || controller.signal.aborted || response.headersSent) throw error;
        last = error;
        fleet.suspect(lane.instance, error.message, neverArrived(error));
      } finally {
        visit.end();
      }
    }
    throw last;
  } finally {
    clearTimeout(timer);
  }
}
