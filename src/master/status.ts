/** Mooncake's status numbers (its ErrorCode), as they go over its wire; 0 is success. */
export const STATUS = {
  ok: 0,
  internal: -1,
  segmentNotFound: -101,
  segmentExists: -102,
  noSpace: -200,
  invalidParams: -600,
  notOwner: -601,
  invalidWrite: -700,
  notReady: -703,
  notFound: -704,
  exists: -705,
  leased: -706,
  leaseExpired: -707,
  quotaExceeded: -1700,
  unknownTenant: -1701,
} as const;
