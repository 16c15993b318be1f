/** The replicate config of a put as the stock client's default puts it on the wire, with what a test changes of it. */
export const replicateConfig = (more: Record<string, unknown> = {}) => ({
  replicas: 1n,
  nofReplicas: 0n,
  dfsReplicas: 0n,
  softPin: 0,
  softPinTtlMs: undefined,
  hardPin: false,
  preferredSegments: [],
  preferredSegment: '',
  preferredNofSegments: [],
  preferSameNode: false,
  dataType: 0,
  hostId: '',
  groups: undefined,
  ...more,
});
