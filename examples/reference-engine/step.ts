/** What the scheduler says to the workers for one step, what comes back, and what it means to those who wait. */
import type { ConnectorMetadata, ConnectorOutput, KvTransferParams, SchedulerOutput } from 'mooncake-ts';
import type { Request } from './request.js';

/** A request's part of a step: it computes `count` tokens from token `from` on. */
export interface Scheduled {
  readonly request: Request;
  readonly from: number;
  readonly count: number;
}

export interface Step {
  readonly batch: readonly Scheduled[];
  /** What connectors hear of it. */
  readonly output: SchedulerOutput;
  /** What the scheduler half of the connector tells its worker halves. */
  readonly metadata: ConnectorMetadata;
}

export interface StepOutcome {
  /**
   * For each request of the batch the token that follows, or null where its prompt is not at its end. Null as a whole: a
   * load of the step failed, and nothing of the step counts.
   */
  readonly tokens: readonly (number | null)[] | null;
  readonly connector: ConnectorOutput;
}

/** Why a request ended: at its end-of-text token, at `maxTokens`, or because somebody wanted it to. */
export type FinishReason = 'stop' | 'length' | 'abort';

/** What a step did to a request that somebody waits for. */
export type Progress =
  | { readonly request: Request; readonly token: number; readonly finished?: undefined }
  | { readonly request: Request; readonly finished: FinishReason; readonly params: KvTransferParams | null };
