/** A prefill and a decode that follows it layer by layer. */
import { LocalTransfer } from 'mooncake-ts';
import * as assert from 'uvu/assert';
import { type HarnessRequest, tokensOf } from './harness.js';
import { GatedTransfer } from './pd-gate.js';
import { counters, decodeParams, type Side, type SideOptions, side, transferId } from './pd-pair.js';

export const TOKENS = tokensOf(21, 19);
export const LAYERS = 3;
/** Blocks of TOKENS that are full: the rest is known to be finished only at the end. */
export const FULL = 4;

export function clean(...sides: Side[]): void {
  for (const { engine } of sides) {
    assert.equal(engine.corruptions, []);
    assert.is(engine.freeBlocks, engine.blocks);
    assert.is(engine.idle, true);
  }
}

/** A pair whose prefill computes a block in a step. */
export function pair(options: { prefill?: SideOptions; decode?: SideOptions } = {}) {
  const gate = new GatedTransfer(new LocalTransfer());
  const shape = { layers: LAYERS, maxTokensPerStep: 4 };
  const prefill = side({ ...shape, form: 'split', transfer: () => gate, ...options.prefill });
  const { connector, ...rest } = options.decode ?? {};
  const decode = side({ layers: LAYERS, ...rest, connector: { mode: 'layers', ...connector } });
  return { gate, prefill, decode, sides: [prefill, decode] };
}

/** Starts both requests at once: neither has run yet. */
export function start(
  prefill: Side,
  decode: Side,
  tokens = TOKENS,
): { prefilled: HarnessRequest; decoded: HarnessRequest } {
  const transfer = transferId();
  const decoded = decode.engine.add({ tokens, maxTokens: 3, kvTransferParams: decodeParams(prefill, transfer) });
  const kvTransferParams = { do_remote_decode: true, transfer_id: transfer };
  return { decoded, prefilled: prefill.engine.add({ tokens, kvTransferParams }) };
}

export const waits = (prefill: Side) => () => counters(prefill).decodesWaiting > 0;
export const early = (prefill: Side) => counters(prefill).layersPushedEarly;
