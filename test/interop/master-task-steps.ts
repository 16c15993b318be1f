/** The part of the script that is about copies, moves and tasks (master-script.ts). */
import type { MethodName } from 'mooncake-ts/rpc';
import {
  A,
  type Arguments,
  B,
  bytes,
  id,
  NO_SEGMENT,
  pack,
  STRANGER,
  type Steps,
  segment,
  TENANT,
  wait,
} from './master-script.js';

const MiB = 2 ** 20;
/** Segments of A, B and B, names that nobody else has had. */
const [A1, B1, C1] = ['copy-a:1', 'copy-b:1', 'copy-c:1'];
const FREE_TASK = { task: '0'.repeat(32), epoch: 0n };

/** Copies and moves. */
export async function copySteps({ leaseMs, call, put, putStart, revoke, get, exist, remove }: Steps): Promise<void> {
  const mount = (name: string, number: number, size: number, client: string) =>
    call(name, 'MountSegment', {
      segment: segment(id(number), name, BigInt(number) << 32n, BigInt(size)),
      client,
    });
  await mount(A1, 0x71, 64 * MiB, A);
  await mount(B1, 0x72, 64 * MiB, B);
  await mount(C1, 0x73, 16 * MiB, B);
  const of = (key: string, client = A) => ({ client, key: bytes(key), tenant: TENANT });
  const copy = (step: string, key: string, source: string, targets: string[], client = A) =>
    call(step, 'CopyStart', { ...of(key, client), source, targets });
  const move = (step: string, key: string, source: string, target: string, client = A) =>
    call(step, 'MoveStart', { ...of(key, client), source, target });
  const end = (step: string, name: MethodName, key: string, client = A) => call(step, name, of(key, client));
  await put('cp', 1000n, { preferredSegment: A1 });
  await copy('absent', 'no cp', A1, [B1]);
  await copy('absent, unknown target', 'no cp', A1, ['nobody:1']);
  await copy('unknown source segment', 'cp', 'nobody:1', [B1]);
  await copy('source without a copy', 'cp', B1, [C1]);
  await copy('source without a copy, unknown target', 'cp', B1, ['nobody:1']);
  await copy('one unknown target', 'cp', A1, [B1, 'nobody:1']);
  await copy('empty key', '', A1, [B1]);
  await end('nothing under way', 'CopyEnd', 'cp');
  await end('nothing under way', 'CopyRevoke', 'cp');
  await end('nothing under way', 'MoveEnd', 'cp');
  await copy('no targets', 'cp', A1, []);
  await end('no targets', 'CopyEnd', 'cp');
  await copy('to itself', 'cp', A1, [A1]);
  await end('to itself', 'CopyRevoke', 'cp');
  await copy('good', 'cp', A1, [B1, C1], B);
  await copy('a second', 'cp', A1, [C1]);
  await copy('a second, unknown target', 'cp', A1, ['nobody:1']);
  await copy('a second, unknown source', 'cp', 'nobody:1', [C1]);
  await move('while copying', 'cp', A1, C1);
  await get('while copying', 'cp');
  await exist('while copying', 'cp');
  await end('of a copy', 'MoveEnd', 'cp', B);
  await end('of a copy', 'MoveRevoke', 'cp', B);
  await end('of another client', 'CopyEnd', 'cp');
  await end('of another client', 'CopyRevoke', 'cp');
  await putStart('while copying', 'cp', 1000n);
  await remove('while copying, leased', 'cp');
  await wait(leaseMs + 100);
  await remove('while copying', 'cp');
  await putStart('while copying', 'cp', 1000n, {}, 'UpsertStart');
  await putStart('while copying, another size', 'cp', 2000n, {}, 'UpsertStart');
  await call('while copying', 'BatchReplicaClear', { keys: pack(['cp']), client: A, segment: '' });
  await end('good', 'CopyEnd', 'cp', B);
  await end('again', 'CopyEnd', 'cp', B);
  await get('copied', 'cp');
  await put('mv', 1000n, { preferredSegment: A1 });
  await move('to itself', 'mv', A1, A1);
  await move('absent, to itself', 'no mv', A1, A1);
  await move('absent', 'no mv', A1, B1);
  await move('absent, unknown target', 'no mv', A1, 'nobody:1');
  await move('unknown target', 'mv', A1, 'nobody:1');
  await move('source without a copy', 'mv', B1, C1);
  await move('good', 'mv', A1, B1);
  await end('of a move', 'CopyEnd', 'mv');
  await get('while moving', 'mv');
  await end('good', 'MoveEnd', 'mv');
  await get('moved', 'mv');
  await move('revoked', 'mv', B1, C1, B);
  await end('of another client', 'MoveRevoke', 'mv');
  await end('revoked', 'MoveRevoke', 'mv', B);
  await get('move revoked', 'mv');
  await copy('to move back', 'mv', B1, [C1]);
  await end('to move back', 'CopyEnd', 'mv');
  await move('target has one', 'mv', B1, C1);
  await end('target has one', 'MoveEnd', 'mv');
  await get('target had one', 'mv');
  await put('big', BigInt(20 * MiB), { preferredSegment: A1 });
  await copy('too large', 'big', A1, [C1]);
  await copy('too large, unknown target', 'big', A1, [C1, 'nobody:1']);
  await move('too large', 'big', A1, C1);
  await putStart('to be copied', 'begun', 10n, { preferredSegment: A1 });
  await copy('being written', 'begun', A1, [B1]);
  await move('being written', 'begun', A1, B1);
  await revoke('to be copied', 'begun');
  const dynamic = (step: string, key: string, name: MethodName, more: Arguments) =>
    call(step, name, { ...of(key), ...FREE_TASK, ...more });
  await dynamic('no lease', 'mv', 'DynamicReplicaCopyStart', { source: C1, targets: [B1] });
  await dynamic('busy, with a lease', 'mv', 'DynamicReplicaCopyStart', { source: C1, targets: [B1], task: id(9) });
  await dynamic('with a lease', 'mv', 'DynamicReplicaCopyEnd', { task: id(9) });
  await dynamic('another epoch', 'mv', 'DynamicReplicaCopyRevoke', { epoch: 1n });
  await dynamic('of another, with a lease', 'mv', 'DynamicReplicaCopyEnd', { client: B, task: id(9) });
  await dynamic('no lease', 'mv', 'DynamicReplicaCopyEnd', {});
  await dynamic('nothing under way', 'mv', 'DynamicReplicaCopyRevoke', {});
  await dynamic('with a lease', 'cp', 'DynamicReplicaCopyStart', { source: A1, targets: [B1], task: id(9) });
  await dynamic('with a lease, unknown', 'cp', 'DynamicReplicaCopyStart', {
    source: 'x',
    targets: ['y'],
    task: id(9),
  });
  await dynamic('unknown target', 'cp', 'DynamicReplicaCopyStart', { source: A1, targets: ['nobody:1'] });
  // The target goes, then the source of what has another copy.
  await put('t1', 1000n, { preferredSegment: A1 });
  await put('t2', 1000n, { preferredSegment: A1 });
  await put('t3', 1000n, { preferredSegment: C1 });
  await copy('target goes', 't1', A1, [B1, C1]);
  await move('target goes', 't2', A1, C1);
  await copy('before the source goes', 't3', C1, [A1]);
  await end('before the source goes', 'CopyEnd', 't3');
  await copy('source goes', 't3', C1, [B1]);
  await call('with copies under way', 'UnmountSegment', { segment: id(0x73), client: B });
  await end('target gone', 'CopyEnd', 't1');
  await get('target of a copy gone', 't1');
  await end('target gone', 'MoveEnd', 't2');
  await get('target of a move gone', 't2');
  await end('target gone, again', 'MoveEnd', 't2');
  await end('source gone', 'CopyEnd', 't3');
  await get('source of a copy gone', 't3');
  await put('forced', 10n, { preferredSegment: A1 });
  await copy('to one segment twice', 'forced', A1, [B1, B1]);
  await call('while copying', 'GetReplicaListByRegex', { pattern: '^forced$', tenant: TENANT });
  await remove('while copying, forced', 'forced', true);
  await end('after a forced removal', 'CopyRevoke', 'forced');
  for (const key of ['cp', 'mv', 'big', 't1', 't2', 't3']) await remove(`copied, ${key}`, key, true);
}

/** The queue of tasks, as any client sees it. */
export async function taskSteps({ answers, call, put, putStart, revoke, remove }: Steps): Promise<void> {
  const ids = new Map<string, unknown>();
  const create = async (step: string, name: MethodName, key: string, where: Arguments) => {
    const answer = await call(step, name, { key: bytes(key), tenant: TENANT, ...where });
    if (typeof answer !== 'object' || answer === null) return NO_SEGMENT;
    const task = String((answer as { ok: unknown }).ok);
    ids.set(task, step);
    answers[`${name}: ${step}`] = 'a task';
    return task;
  };
  const copy = (step: string, key: string, ...targets: string[]) => create(step, 'CreateCopyTask', key, { targets });
  const move = (step: string, key: string, source: string, target: string) =>
    create(step, 'CreateMoveTask', key, { source, target });
  const told = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(told);
    if (typeof value !== 'object' || value === null) return value;
    const { createdMs, updatedMs, id: task, ...rest } = value as Arguments;
    return { ...Object.fromEntries(Object.entries(rest).map(([k, v]) => [k, told(v)])), task: ids.get(String(task)) };
  };
  const ask = async (step: string, name: MethodName, args: Arguments) => {
    answers[`${name}: ${step}`] = told(await call(step, name, args));
  };
  const mark = (step: string, task: string, state: number, client = A) =>
    call(step, 'MarkTaskToComplete', { client, end: { id: task, state, message: step } });
  await call('both', 'ReMountSegment', { segments: [], client: A });
  await call('the other', 'ReMountSegment', { segments: [], client: B });
  await put('tk', 1000n, { preferredSegment: A1 });
  await put('odd "\n\u0001é😀', 10n, { preferredSegment: A1 });
  await copy('absent', 'no tk', B1);
  await copy('absent, unknown target', 'no tk', 'nobody:1');
  await copy('absent, no targets', 'no tk');
  await copy('of a known key, no targets', 'tk');
  await copy('one unknown target', 'tk', B1, 'nobody:1');
  await copy('empty key', '', B1);
  const itself = await copy('to itself', 'tk', A1);
  const good = await copy('good', 'tk', B1);
  await copy('odd key', 'odd "\n\u0001é😀', B1, A1);
  await move('absent', 'no tk', A1, B1);
  await move('absent, to itself', 'no tk', A1, A1);
  await move('to itself', 'tk', A1, A1);
  await move('unknown source', 'tk', 'nobody:1', B1);
  await move('unknown target', 'tk', A1, 'nobody:1');
  await move('source without a copy', 'tk', B1, A1);
  const moved = await move('good', 'tk', A1, B1);
  await ask('pending', 'QueryTask', { task: good });
  await ask('of another', 'FetchTasks', { client: B, count: 16n });
  await ask('of a stranger', 'FetchTasks', { client: STRANGER, count: 16n });
  await ask('0', 'FetchTasks', { client: A, count: 0n });
  await ask('1', 'FetchTasks', { client: A, count: 1n });
  await ask('processing', 'QueryTask', { task: itself });
  await mark('not fetched', good, 3);
  await ask('all', 'FetchTasks', { client: A, count: 2n ** 64n - 1n });
  await ask('none left', 'FetchTasks', { client: A, count: 16n });
  await ask('ended before it was fetched', 'QueryTask', { task: good });
  await mark('of another', moved, 3, B);
  for (const state of [0, 1, 4, -1]) await mark(`state ${state}`, moved, state);
  await mark('unknown, no state', NO_SEGMENT, 1);
  await mark('unknown task', NO_SEGMENT, 3);
  await mark('failed', moved, 2);
  await mark('again', moved, 3);
  await ask('failed', 'QueryTask', { task: moved });
  await putStart('of tasks', 'begun', 10n, { preferredSegment: A1 });
  await copy('being written', 'begun', B1);
  await move('being written', 'begun', A1, B1);
  await revoke('of tasks', 'begun');
  await call('those that differ', 'FetchTasks', { client: A, count: 16n });
  answers['FetchTasks: those that differ'] = 'fetched';
  await remove('of tasks', 'tk', true);
  await remove('of tasks, odd', 'odd "\n\u0001é😀', true);
  await call('of copies', 'UnmountSegment', { segment: id(0x71), client: A });
  await call('of copies, the other', 'UnmountSegment', { segment: id(0x72), client: B });
}
