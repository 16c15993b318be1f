/** The proxy's own answers, in the form of OpenAI's API. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type ErrorCode, errors, MooncakeError } from '../core/errors.js';

/** HTTP status of an error that ends a request. */
const STATUS: Partial<Record<ErrorCode, number>> = {
  ERR_INVALID_ARGUMENT: 400,
  ERR_NOT_FOUND: 404,
  ERR_NAMESPACE: 409,
  ERR_QUEUE_FULL: 503,
  ERR_NO_INSTANCE: 503,
  ERR_CLOSED: 503,
  ERR_PEER: 502,
  ERR_TIMEOUT: 504,
};
const TYPE: Record<number, string> = {
  400: 'BadRequestError',
  401: 'AuthenticationError',
  403: 'PermissionDeniedError',
  404: 'NotFoundError',
  405: 'MethodNotAllowedError',
  413: 'RequestTooLargeError',
  415: 'UnsupportedMediaTypeError',
};

/** An error with a status of its own. */
export class Refusal extends MooncakeError {
  readonly status: number;

  constructor(status: number, error: MooncakeError) {
    super(error.code, error.message, { argument: error.argument, value: error.value });
    this.status = status;
  }
}

export function statusOf(error: unknown): number {
  if (error instanceof Refusal) return error.status;
  return (error instanceof MooncakeError ? STATUS[error.code] : undefined) ?? 500;
}

export function errorBody(error: unknown, status: number): object {
  const isKnown = error instanceof MooncakeError;
  return {
    error: {
      message: isKnown ? error.message : 'the proxy failed',
      type: TYPE[status] ?? (status < 500 ? 'BadRequestError' : 'InternalServerError'),
      param: (isKnown && status < 500 && error.argument) || null,
      code: status,
      ...(isKnown && { reason: error.code }),
    },
  };
}

export function json(response: ServerResponse, status: number, value: unknown): void {
  const body = Buffer.from(`${JSON.stringify(value)}\n`);
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': body.length }).end(body);
}

/** Answers with an error, where that can still be done. */
export function refuse(response: ServerResponse, error: unknown): void {
  if (response.destroyed || response.headersSent) return;
  const status = statusOf(error);
  if (status === 503) response.setHeader('retry-after', '1');
  // What is left of a body that nobody reads must not be taken for the next request.
  if (!response.req.complete) response.setHeader('connection', 'close');
  json(response, status, errorBody(error, status));
}

/**
 * The whole body. `take` is told of its bytes as they come, and may refuse them by throwing.
 * @throws Refusal 413 above `limit` bytes; ERR_ABORTED where the client goes away
 */
export async function readBody(
  request: IncomingMessage,
  limit: number,
  take: (bytes: number) => void = () => {},
): Promise<Buffer> {
  const tooLong = () => new Refusal(413, errors.invalidArgument('body', undefined, `at most ${limit} bytes`));
  if (Number(request.headers['content-length']) > limit) throw tooLong();
  const chunks: Buffer[] = [];
  let length = 0;
  return new Promise((resolve, reject) => {
    request.on('data', (chunk: Buffer) => {
      length += chunk.length;
      try {
        if (length > limit) throw tooLong();
        take(chunk.length);
      } catch (error) {
        request.pause();
        request.removeAllListeners('data');
        return reject(error);
      }
      chunks.push(chunk);
    });
    request.on('end', () => resolve(chunks.length === 1 ? chunks[0] : Buffer.concat(chunks, length)));
    request.on('error', (error) => reject(errors.aborted(error)));
    request.on('close', () => {
      if (!request.complete) reject(errors.aborted('the client went away'));
    });
  });
}

/** The body as JSON object. */
export function jsonObject(body: Buffer): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(body.toString());
  } catch {
    value = undefined;
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw errors.invalidArgument('body', body.toString('utf8', 0, 256), 'a JSON object');
  }
  return value as Record<string, unknown>;
}
