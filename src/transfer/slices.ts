/**
 * Work in small steps on the event loop: all jobs of the process share a few milliseconds of each turn, one step each in
 * turn, so that neither a large copy nor many of them hold up timers and sockets.
 */
const BUDGET_MS = 2;

/** Does a little, and says whether it is done. It must not throw. */
export type Step = () => boolean;

const queue: Step[] = [];
let scheduled = false;

function turn(): void {
  const end = performance.now() + BUDGET_MS;
  do {
    const step = queue.shift()!;
    if (!step()) queue.push(step);
  } while (queue.length > 0 && performance.now() < end);
  scheduled = queue.length > 0;
  if (scheduled) setImmediate(turn);
}

/** Runs `step` again and again until it says that it is done. */
export function inSlices(step: Step): void {
  queue.push(step);
  if (scheduled) return;
  scheduled = true;
  setImmediate(turn);
}
