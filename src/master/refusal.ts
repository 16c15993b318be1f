/** The refusal of a key, as outcomes say it. */
import type { Status } from './api.js';
import { STATUS } from './status.js';

export function refuse(status: Status, why: string): { ok: false; status: Status; why: string } {
  return { ok: false, status, why };
}

export const UNKNOWN_TENANT = refuse(STATUS.unknownTenant, 'unknown-tenant');
