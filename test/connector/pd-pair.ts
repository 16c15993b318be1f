/** A prefill and a decode engine with a router between, for the tests of hand-overs. */
import {
  type KvTransferParams,
  LocalTransfer,
  MooncakeConnector,
  type MooncakeConnectorOptions,
  type MooncakeError,
  type Transfer,
} from 'mooncake-ts';
import { HarnessEngine, type HarnessOptions, type HarnessRequest } from './harness.js';

export interface Side {
  readonly engine: HarnessEngine;
  /** One per rank. */
  readonly transfers: readonly Transfer[];
  /** Why loads failed. */
  readonly failures: MooncakeError[];
}

export interface SideOptions extends Partial<Omit<HarnessOptions, 'connector'>> {
  connector?: Partial<MooncakeConnectorOptions>;
  transfer?: (rank: number) => Transfer;
}

export function side({ connector, transfer = () => new LocalTransfer(), ...harness }: SideOptions = {}): Side {
  const transfers = Array.from({ length: harness.tensorParallelSize ?? 1 }, (_, rank) => transfer(rank));
  const failures: MooncakeError[] = [];
  const mooncake = new MooncakeConnector({
    transfer: (rank) => transfers[rank],
    onLoadError: (error) => failures.push(error),
    ...connector,
  });
  return { engine: new HarnessEngine({ connector: mooncake, ...harness }), transfers, failures };
}

export async function closeSide({ engine, transfers }: Side): Promise<void> {
  await engine.close();
  await Promise.all(transfers.map((transfer) => transfer.close()));
}

/** What a router that knows the prefill engine before it has answered sends to the decode. */
export function decodeParams({ engine, transfers }: Side, transferId: string): KvTransferParams {
  return {
    do_remote_prefill: true,
    transfer_id: transferId,
    remote_engine_id: engine.info.engineId,
    remote_bootstrap_addr: transfers[0].address,
  };
}

/** Steps all engines in turn until `done`. */
export async function drive(sides: readonly Side[], done: () => boolean, limitMs = 20_000): Promise<void> {
  const end = Date.now() + limitMs;
  while (!done()) {
    if (Date.now() > end) throw new Error('the engines hang');
    for (const { engine } of sides) await engine.step();
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** Steps all engines so many times. */
export async function steps(sides: readonly Side[], count: number): Promise<void> {
  let left = count;
  await drive(sides, () => left-- === 0);
}

export const idle = (sides: readonly Side[]) => () => sides.every(({ engine }) => engine.idle);

let transfers = 0;
export const transferId = () => `transfer-${++transfers}`;

/** Prefills at one side, decodes at the other: as a router that waits for the prefill. */
export async function handOver(
  prefill: Side,
  decode: Side,
  tokens: readonly number[],
  maxTokens = 4,
): Promise<{ prefilled: HarnessRequest; decoded: HarnessRequest }> {
  const params = { do_remote_decode: true, do_remote_prefill: false, transfer_id: transferId() };
  const prefilled = prefill.engine.add({ tokens, kvTransferParams: params });
  await drive([prefill], () => prefilled.state === 'finished');
  const decoded = decode.engine.add({ tokens, maxTokens, kvTransferParams: prefilled.params ?? undefined });
  await drive([prefill, decode], idle([prefill, decode]));
  return { prefilled, decoded };
}

/** The counters of all workers of a side. */
export function counters({ engine }: Side): Record<string, number> {
  const sum: Record<string, number> = {};
  for (const half of [engine.scheduler, ...engine.workers]) {
    for (const [name, value] of Object.entries(half.stats())) sum[name] = (sum[name] ?? 0) + value;
  }
  return sum;
}
