/** A real store whose every call takes some milliseconds, as over a network: it opens the stages between call and answer. */
import type { GetBatch, ObjectStore, PutBatch } from 'mooncake-ts';

export function slowStore(store: ObjectStore, delayMs: () => number): ObjectStore {
  const pause = () => new Promise<void>((resolve) => setTimeout(resolve, delayMs()));
  const after =
    <A extends unknown[], R>(call: (...args: A) => Promise<R>) =>
    async (...args: A): Promise<R> => {
      await pause();
      return call(...args);
    };
  return {
    transfer: store.transfer,
    countMiss: (reason, keys) => store.countMiss(reason, keys),
    batchIsExist: after((...args) => store.batchIsExist(...args)),
    batchRemove: after((...args) => store.batchRemove(...args)),
    removeByRegex: after((...args) => store.removeByRegex(...args)),
    openPut: after(async (...args): Promise<PutBatch> => {
      const batch = await store.openPut(...args);
      return {
        statuses: batch.statuses,
        write: after((...moves) => batch.write(...moves)),
        commit: after(() => batch.commit()),
        abort: after(() => batch.abort()),
      };
    }),
    openGet: after(async (...args): Promise<GetBatch> => {
      const batch = await store.openGet(...args);
      return {
        statuses: batch.statuses,
        sizes: batch.sizes,
        read: after((...moves) => batch.read(...moves)),
        finish: after(() => batch.finish()),
      };
    }),
  };
}
