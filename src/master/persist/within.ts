/** After a process that stood still, what was finished meanwhile is heard of within so long. */
const GRACE_MS = 100;

/** What a promise resolves with, or an error after so long; whatever it was waiting for goes on. */
export function within<T>(milliseconds: number, what: string, promise: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const late = () => reject(new Error(`${what} took longer than ${milliseconds} ms`));
    let timer = setTimeout(() => {
      // Timers come before what the disk has to say: a process that was stopped must not take it for a dead one.
      timer = setTimeout(late, GRACE_MS);
    }, milliseconds);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
