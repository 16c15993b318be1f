// A script of calls on the stock master and on ours: every answer is the same, but where ours differs by a decision.
import type { RpcClient } from 'mooncake-ts/rpc';
import * as assert from 'uvu/assert';
import { type Kind, Master } from '../support/masters.js';
import type { Answers } from './master-script.js';

export type Decisions = Record<string, { ours: unknown; stock: unknown; why: string }>;
type Script = (client: RpcClient, leaseMs: number) => Promise<Answers>;

async function answersOf(kind: Kind, script: Script, leaseMs: number, flags: readonly string[]): Promise<Answers> {
  const master = await Master.start(kind, [...flags, `--default_kv_lease_ttl=${leaseMs}`]);
  const client = await master.connect();
  try {
    return await script(client, leaseMs);
  } finally {
    client.close();
    await master.end();
  }
}

/** Runs `script` on both masters under the same flags; it must ask for more than `least` answers. */
export async function compareMasters(
  script: Script,
  { decisions, leaseMs, least, flags = [] }: { decisions: Decisions; leaseMs: number; least: number; flags?: string[] },
): Promise<void> {
  const stock = await answersOf('stock', script, leaseMs, flags);
  const ours = await answersOf('ours', script, leaseMs, flags);
  assert.equal(Object.keys(ours), Object.keys(stock));
  assert.ok(Object.keys(ours).length > least);
  for (const [step, answer] of Object.entries(ours)) {
    const decision = decisions[step];
    assert.equal(answer, decision ? decision.ours : stock[step], `${step}: ours`);
    if (decision) assert.equal(stock[step], decision.stock, `${step}: stock`);
  }
  for (const step of Object.keys(decisions)) assert.ok(step in ours, step);
}
