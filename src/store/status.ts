/** Statuses of the metadata service as errors of this package, for calls that speak of one object. */
import { type ErrorCode, MooncakeError } from '../core/errors.js';
import { STATUS } from '../master/status.js';

const CODES: Readonly<Record<number, ErrorCode>> = {
  [STATUS.segmentNotFound]: 'ERR_SEGMENT',
  [STATUS.segmentExists]: 'ERR_SEGMENT',
  [STATUS.noSpace]: 'ERR_NO_SPACE',
  [STATUS.invalidParams]: 'ERR_INVALID_ARGUMENT',
  [STATUS.notOwner]: 'ERR_NOT_OWNER',
  [STATUS.invalidWrite]: 'ERR_CORRUPT',
  [STATUS.notReady]: 'ERR_NOT_READY',
  [STATUS.notFound]: 'ERR_NOT_FOUND',
  [STATUS.leased]: 'ERR_LEASED',
  [STATUS.quotaExceeded]: 'ERR_QUOTA',
  [STATUS.unknownTenant]: 'ERR_UNKNOWN_TENANT',
};

/** `why` is the service's own word for it, where it gave one. */
export function statusError(status: number, key: string, why = ''): MooncakeError {
  const code = CODES[status] ?? 'ERR_PROTOCOL';
  const detail = why === '' ? '' : `: ${why}`;
  return new MooncakeError(code, `key ${JSON.stringify(key)}: status ${status}${detail}`, {
    argument: 'key',
    value: key,
  });
}
