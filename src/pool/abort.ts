/**
 * Many calls under one AbortSignal, a server's or a session's, with one listener on it: Node warns of a leak where there
 * are more than ten. The listener goes with the last call.
 */
class Listener {
  readonly calls = new Set<() => void>();
  readonly hear = () => {
    for (const abort of [...this.calls]) abort();
  };
}

const listeners = new WeakMap<AbortSignal, Listener>();

/** Calls `abort` when the signal aborts, unless the function returned was called before. */
export function onAbort(signal: AbortSignal, abort: () => void): () => void {
  let listener = listeners.get(signal);
  if (!listener) {
    listeners.set(signal, (listener = new Listener()));
    signal.addEventListener('abort', listener.hear, { once: true });
  }
  const { calls, hear } = listener;
  calls.add(abort);
  return () => {
    calls.delete(abort);
    if (calls.size > 0 || listeners.get(signal)?.calls !== calls) return;
    listeners.delete(signal);
    signal.removeEventListener('abort', hear);
  };
}
