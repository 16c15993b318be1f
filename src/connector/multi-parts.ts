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

/** Calls each half, whatever the others say; then throws the first error. */
export function forAll<T>(parts: readonly Part<T>[], call: (half: T, index: number) => void): void {
  const failures: unknown[] = [];
  for (const [index, { half }] of parts.entries()) {
    try {
      call(half, index);
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}

/** The same, and settles when all have: until then one of them may still use the blocks. */
export async function settleAll<T>(parts: readonly Part<T>[], call: (half: T) => Promise<void>): Promise<void> {
  const results = await Promise.allSettled(parts.map(async ({ half }) => call(half)));
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}
