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

/** What a status means where nobody said more: a stock master answers with the number alone. */
const MEANINGS: Readonly<Record<number, string>> = {
  [STATUS.noSpace]: 'no segment has room and nothing may be evicted, or nobody lends memory yet (`mooncake-ts top`)',
  [STATUS.notReady]: 'it is being written',
  [STATUS.notFound]: 'there is no such object',
  [STATUS.leased]: 'a lease protects it: it was looked up or read a moment ago; try again later, or with force',
  [STATUS.quotaExceeded]: "the tenant's quota does not allow it",
  [STATUS.unknownTenant]: 'this tenant is not served',
};

/** `why` is the service's own word for it, where it gave one. */
export function statusError(status: number, key: string, why = MEANINGS[status] ?? ''): MooncakeError {
  const code = CODES[status] ?? 'ERR_PROTOCOL';
  const detail = why === '' ? '' : `: ${why}`;
  return new MooncakeError(code, `key ${JSON.stringify(key)}: status ${status}${detail}`, {
    argument: 'key',
    value: key,
  });
}
