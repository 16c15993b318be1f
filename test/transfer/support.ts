/** Both kinds of transfer, for tests that run over each. */
import { LocalTransfer, MooncakeError, TcpTransfer, type Transfer, type TransferOptions } from 'mooncake-ts';
import * as assert from 'uvu/assert';

export interface Kind {
  name: string;
  open(options?: TransferOptions): Promise<Transfer>;
}

export const KINDS: Kind[] = [
  { name: 'local', open: async (options) => new LocalTransfer(options) },
  { name: 'tcp', open: (options) => TcpTransfer.listen({ ...options, native: false }) },
  { name: 'tcp, accelerated', open: (options) => TcpTransfer.listen({ ...options, native: true }) },
];

/** Runs `work` with two open transfers, and closes them. */
export async function withPair(kind: Kind, work: (a: Transfer, b: Transfer) => Promise<void>): Promise<void> {
  const [a, b] = [await kind.open(), await kind.open()];
  try {
    await work(a, b);
  } finally {
    await Promise.all([a.close(), b.close()]);
  }
}

/** The error that `promise` rejects with, which must be a MooncakeError of that code. */
export async function rejects(promise: Promise<unknown>, code: string, argument?: string): Promise<MooncakeError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert.instance(error, MooncakeError, `resolved, or failed with ${error}`);
  assert.is((error as MooncakeError).code, code, (error as MooncakeError).message);
  if (argument !== undefined) assert.is((error as MooncakeError).argument, argument);
  return error as MooncakeError;
}

export function throws(work: () => unknown, code: string, argument?: string): void {
  try {
    work();
  } catch (error) {
    assert.instance(error, MooncakeError);
    assert.is((error as MooncakeError).code, code, (error as MooncakeError).message);
    if (argument !== undefined) assert.is((error as MooncakeError).argument, argument);
    return;
  }
  assert.unreachable(`nothing thrown where ${code} was expected`);
}

export const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
