/** What both halves of MultiConnector do with the halves that they stand for. */

/** One connector's half. */
export interface Part<T> {
  readonly name: string;
  readonly half: T;
}

/** The counters of all, each under its connector's name: `store.hitTokens`. */
export function mergeStats(parts: readonly Part<{ stats(): Readonly<Record<string, number>> }>[]) {
  return Object.fromEntries(
    parts.flatMap(({ name, half }) =>
      Object.entries(half.stats()).map(([counter, value]) => [`${name}.${counter}`, value]),
    ),
  );
}

/** Shuts all down, whatever the others say; then throws the first error. */
export async function shutdownAll(parts: readonly Part<{ shutdown(): Promise<void> }>[]): Promise<void> {
  // A half that throws at once must not keep the others open either.
  const results = await Promise.allSettled(parts.map(async ({ half }) => half.shutdown()));
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}
