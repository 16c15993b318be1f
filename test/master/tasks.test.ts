/** The queue of tasks, requests for them, and drain jobs. */
import { Drains, TASK_STATE, TaskQueue, TaskRequests } from 'mooncake-ts/master';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ALICE, BOB, segment, start, uuid } from './support.js';

const OPTIONS = {
  maxFinishedTasks: 2,
  maxPendingTasks: 3,
  maxProcessingTasks: 2,
  pendingTaskMs: 100,
  processingTaskMs: 50,
};

function queue() {
  const clock = { now: 0 };
  const tasks = new TaskQueue(() => clock.now, OPTIONS);
  const submit = (client = ALICE) => {
    const outcome = tasks.submit(client, 0, '{}');
    return outcome.ok ? outcome.value : String(outcome.status);
  };
  const state = (id: string) => tasks.get(id)?.state;
  return { clock, tasks, submit, state };
}

test('a client gets its own tasks, the oldest first, and no more than may be under way', () => {
  const { tasks, submit } = queue();
  const [a, b, c] = [submit(), submit(BOB), submit()];
  assert.is(submit(), '-1401');
  assert.equal(
    tasks.fetch(ALICE, 1).map(({ id }) => id),
    [a],
  );
  assert.equal(
    tasks.fetch(BOB, 9).map(({ id }) => id),
    [b],
  );
  assert.equal(tasks.fetch(ALICE, 9), [], 'two are under way');
  assert.is(tasks.complete(ALICE, a, TASK_STATE.success, 'done'), 0);
  assert.equal(
    tasks.fetch(ALICE, 9).map(({ id }) => id),
    [c],
  );
  assert.equal(tasks.counts, { pending: 0, processing: 2, finished: 1 });
});

test('the last that have ended are remembered', () => {
  const { tasks, submit, state } = queue();
  const ids = [submit(), submit(), submit()];
  for (const id of ids) tasks.complete(ALICE, id, TASK_STATE.success, '');
  assert.equal(ids.map(state), [undefined, TASK_STATE.success, TASK_STATE.success]);
  assert.equal(tasks.fetch(ALICE, 9), []);
});

test('those that wait or run for too long have failed, each by its own clock', () => {
  const { clock, tasks, submit } = queue();
  const [waits, runs] = [submit(BOB), submit()];
  clock.now = 60;
  tasks.fetch(ALICE, 1);
  clock.now = 100;
  tasks.expire();
  assert.is(tasks.get(waits)?.message, '');
  clock.now = 101;
  tasks.expire();
  assert.is(tasks.get(waits)?.message, 'pending timeout');
  assert.is(tasks.get(runs)?.message, '');
  clock.now = 111;
  tasks.expire();
  assert.equal([tasks.get(runs)?.state, tasks.get(runs)?.message], [TASK_STATE.failed, 'processing timeout']);
  assert.is(tasks.complete(ALICE, runs, TASK_STATE.success, 'late'), 0);
  assert.is(tasks.get(runs)?.state, TASK_STATE.failed);
});

test('the tasks of a client that is gone have failed', () => {
  const { tasks, submit, state } = queue();
  const [a, b] = [submit(), submit(BOB)];
  tasks.fetch(ALICE, 1);
  tasks.forget(ALICE);
  assert.equal([state(a), state(b)], [TASK_STATE.failed, TASK_STATE.pending]);
  assert.equal(
    tasks.fetch(BOB, 9).map(({ id }) => id),
    [b],
  );
});

/** Segment 1 of Alice with `count` objects, 2 of Bob; and a client that carries out tasks, or fails. */
function drainable(count: number) {
  const made = start(10_000);
  const { service } = made;
  service.mountSegment(segment(2, 10_000), BOB);
  for (let i = 0; i < count; i++) made.put(`k${i}`, 10, { preferredSegments: ['segment-1'] });
  const tasks = new TaskQueue(() => made.clock.now);
  const drains = new Drains(service, tasks, new TaskRequests(service, tasks, () => 0));
  const work = (succeed: (key: string) => boolean) => {
    for (const { id, payload } of tasks.fetch(ALICE, 100)) {
      const { key, source, target } = JSON.parse(payload) as { key: string; source: string; target: string };
      const call = { kind: 'move', client: ALICE, key: new TextEncoder().encode(key), tenant: 'default' } as const;
      if (succeed(key)) {
        assert.ok(service.copies.start({ ...call, source, targets: [target] }).ok);
        assert.is(service.copies.end(call), 0);
      }
      tasks.complete(ALICE, id, succeed(key) ? TASK_STATE.success : TASK_STATE.failed, '');
    }
  };
  const drain = (maxConcurrency = 4) => {
    const job = drains.create({ segments: ['segment-1'], maxConcurrency });
    assert.ok(job.ok);
    return job.ok ? job.value : '';
  };
  return { ...made, tasks, drains, work, drain };
}

test('a drain moves everything, a few at a time, while it stays readable, and takes nothing new', async () => {
  const { service, drains, work, drain, tasks, put, place, peek, clock } = drainable(10);
  const job = drain(4);
  for (let round = 0; round < 3; round++) {
    await drains.tick();
    assert.is(tasks.counts.pending, [4, 4, 2][round]);
    for (let i = 0; i < 10; i++) assert.ok(peek(`k${i}`));
    put(`new${round}`, 10, { preferredSegments: ['segment-1'] });
    work(() => true);
  }
  assert.is(place('new1')[0].segment, segment(2, 0).id);
  clock.now += 1000;
  await drains.tick();
  const { state, succeeded, failed, migratedBytes } = drains.get(job)!;
  assert.equal({ state, succeeded, failed, migratedBytes }, { state: 3, succeeded: 10, failed: 0, migratedBytes: 100 });
  assert.is(service.segments()[0].drain, 'drained');
  assert.is(service.unmountSegment(segment(1, 0).id, ALICE), 0);
  for (let i = 0; i < 10; i++) assert.ok(peek(`k${i}`));
});

test('what a client only says it has moved is not taken for moved; after three failures the drain has failed', async () => {
  const { service, drains, work, drain, tasks, put, place } = drainable(3);
  const job = drain();
  for (let round = 0; round < 4; round++) {
    await drains.tick();
    // Of the third nothing is done, and success is reported.
    work((key) => key !== 'k2');
    for (const { id } of tasks.fetch(ALICE, 9)) tasks.complete(ALICE, id, TASK_STATE.success, '');
  }
  for (let i = 0; i < 3; i++) await drains.tick();
  const { state, succeeded, failed, message } = drains.get(job)!;
  assert.equal({ state, succeeded, failed }, { state: 4, succeeded: 2, failed: 3 });
  assert.is(message, 'Drain job failed: unrecoverable units remain');
  assert.is(service.segments()[0].drain, 'none');
  put('new', 10, { preferredSegments: ['segment-1'] });
  assert.is(place('new')[0].segment, segment(1, 0).id, 'it takes objects again');
});

test('what is being put is waited for; a drain can be canceled while no task is under way', async () => {
  const { service, drains, drain, begin, end, tasks, clock } = drainable(0);
  begin('x', 10, { preferredSegments: ['segment-1'] });
  const job = drain();
  await drains.tick();
  assert.equal([drains.get(job)?.state, drains.get(job)?.blocked, tasks.counts.pending], [2, 1, 0]);
  end('x');
  await drains.tick();
  await drains.tick();
  assert.equal([drains.get(job)?.blocked, tasks.counts.pending], [0, 1]);
  assert.is(drains.cancel(job), -1010);
  tasks.forget(ALICE);
  service.tick();
  clock.now++;
  assert.is(drains.cancel(uuid(7)), -1402);
  // Seen as failed by the next look, which begins another.
  await drains.tick();
  assert.is(drains.get(job)?.failed, 1);
});

test.run();
