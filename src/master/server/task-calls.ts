/** The calls about copies and moves of readable objects, and about tasks: clients carry them out, this master keeps count. */
import { METHODS } from '../../rpc/schemas/v0_3_13.js';
import type { RpcServer } from '../../rpc/server.js';
import { failure, success, verdict } from '../../rpc/types.js';
import type { Outcome, Status, Uuid } from '../api.js';
import type { CopyEnd, CopyPlan, CopyRequest } from '../copies.js';
import type { MetadataService } from '../service.js';
import { STATUS } from '../status.js';
import type { TaskRequests } from '../task-requests.js';
import type { TaskQueue } from '../tasks.js';
import { isKey } from './keys.js';
import { statusOf } from './object-calls.js';
import { type Bases, toWire } from './replicas.js';

export interface TaskSources {
  service: MetadataService;
  bases: Bases;
  tasks: TaskQueue;
  requests: TaskRequests;
}

const NOBODY: Uuid = '0'.repeat(32);
/** More than any client asks for at once. */
const MOST_FETCHED = 10_000n;
const ABSENT = { ok: false, status: STATUS.notFound, why: 'absent' } as const;

export function serveTasks(server: RpcServer, { service, bases, tasks, requests }: TaskSources): void {
  const { copies } = service;

  function start(request: CopyRequest): Outcome<CopyPlan> {
    if (!isKey(request.key.length)) return ABSENT;
    try {
      return copies.start(request);
    } catch (error) {
      return { ok: false, status: statusOf(error), why: '' };
    }
  }

  function finish(call: CopyEnd, how: 'end' | 'revoke') {
    if (!isKey(call.key.length)) return failure(STATUS.notFound);
    try {
      return verdict(copies[how](call));
    } catch (error) {
      return failure(statusOf(error));
    }
  }

  const copied = (plan: Outcome<CopyPlan>) =>
    plan.ok
      ? success({
          source: toWire(bases, plan.value.source),
          targets: plan.value.targets.map((one) => toWire(bases, one)),
        })
      : failure(plan.status);

  server.handle(METHODS.CopyStart, (call) => copied(start({ kind: 'copy', ...call, token: token(NOBODY, 0n) })));
  server.handle(METHODS.CopyEnd, (call) => finish({ kind: 'copy', ...call, token: token(NOBODY, 0n) }, 'end'));
  server.handle(METHODS.CopyRevoke, (call) => finish({ kind: 'copy', ...call, token: token(NOBODY, 0n) }, 'revoke'));

  server.handle(METHODS.MoveStart, ({ target, ...call }) => {
    const plan = start({ kind: 'move', ...call, targets: [target] });
    if (!plan.ok) return failure(plan.status);
    const [first] = plan.value.targets;
    return success({ source: toWire(bases, plan.value.source), target: first && toWire(bases, first) });
  });
  server.handle(METHODS.MoveEnd, (call) => finish({ kind: 'move', ...call }, 'end'));
  server.handle(METHODS.MoveRevoke, (call) => finish({ kind: 'move', ...call }, 'revoke'));

  // Copies that the stock master starts by itself, for what is read often, name a lease of its own. This one starts none.
  server.handle(METHODS.DynamicReplicaCopyStart, ({ task, epoch, ...call }) =>
    copied(start({ kind: 'copy', ...call, token: token(task, epoch), isGranted: task === NOBODY })),
  );
  server.handle(METHODS.DynamicReplicaCopyEnd, ({ task, epoch, ...call }) =>
    finish({ kind: 'copy', ...call, token: token(task, epoch) }, 'end'),
  );
  server.handle(METHODS.DynamicReplicaCopyRevoke, ({ task, epoch, ...call }) =>
    finish({ kind: 'copy', ...call, token: token(task, epoch) }, 'revoke'),
  );

  const created = (outcome: Outcome<Uuid>) => (outcome.ok ? success(outcome.value) : failure(outcome.status));
  const guarded = (create: () => Outcome<Uuid>) => {
    try {
      return created(create());
    } catch (error) {
      return failure(statusOf(error));
    }
  };
  server.handle(METHODS.CreateCopyTask, ({ key, tenant, targets }) =>
    guarded(() => requests.copy(key, tenant, targets)),
  );
  server.handle(METHODS.CreateMoveTask, ({ key, tenant, source, target }) =>
    guarded(() => requests.move(key, tenant, source, target)),
  );
  server.handle(METHODS.QueryTask, ({ task: id }) => {
    const task = tasks.get(id);
    if (!task) return failure(STATUS.taskNotFound);
    const { type, state, client, message } = task;
    return success({
      id,
      type,
      state,
      client,
      message,
      createdMs: BigInt(task.createdMs),
      updatedMs: BigInt(task.updatedMs),
    });
  });
  server.handle(METHODS.FetchTasks, ({ client, count }) => {
    const fetched = tasks.fetch(client, Number(count < MOST_FETCHED ? count : MOST_FETCHED));
    const maxRetries = tasks.maxRetries;
    return success(
      fetched.map(({ id, type, payload, createdMs }) => ({
        id,
        type,
        payload,
        createdMs: BigInt(createdMs),
        maxRetries,
      })),
    );
  });
  server.handle(METHODS.MarkTaskToComplete, ({ client, end: { id, state, message } }) => {
    const status: Status = tasks.complete(client, id, state, message);
    return verdict(status);
  });
}

function token(lease: Uuid, epoch: bigint): string {
  return `${lease}:${epoch}`;
}
