/** What the cluster's process and an instance's process say to each other, over Node's IPC channel. */
import type { ConnectorStats } from '../connector/api.js';
import { type ErrorCode, MooncakeError } from '../core/errors.js';
import type { GenerateRequest, GenerateResult, Reached } from './instance.js';
import type { ReferenceOptions } from './reference.js';

export interface WireError {
  message: string;
  code?: ErrorCode;
}

export type ToInstance =
  | { type: 'start'; options: ReferenceOptions; store: string }
  | { type: 'generate'; call: number; request: GenerateRequest }
  | { type: 'abort'; call: number }
  | { type: 'stats'; call: number }
  | { type: 'close' };

export type FromInstance =
  | { type: 'started'; reached: Reached }
  | { type: 'alive' }
  | { type: 'failed'; error: WireError }
  | { type: 'token'; call: number; token: number; text: string }
  | { type: 'answer'; call: number; value: GenerateResult | ConnectorStats }
  | { type: 'refusal'; call: number; error: WireError };

/** How often an instance says that it lives, and how long it may be silent, in milliseconds. */
export const ALIVE_EVERY = 500;
export const SILENCE = 5_000;

export function toWire(error: unknown): WireError {
  if (error instanceof MooncakeError) return { message: error.message, code: error.code };
  return { message: error instanceof Error ? error.message : String(error) };
}

export function fromWire({ message, code }: WireError): Error {
  return code ? new MooncakeError(code, message) : new Error(message);
}
