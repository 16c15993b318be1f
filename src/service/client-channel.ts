/** How a client's frames travel to a service and back, for callers that may have to wait within their turn (client-bridge.ts). */

/** `[id, op, args]`; id 0 wants no answer. */
export type ToService = readonly [id: number, op: string, args: object];

/** An answer; id 0: to no call; id -1: the connection has ended, and nothing comes any more. */
export type FromService = readonly [id: number, error: { code: string; message: string } | null, result: unknown];

export interface Channel {
  /** What is posted in one turn goes out together. */
  post(message: ToService): void;
  /** Hands over what comes, within this turn; returns when something has come, or after so many milliseconds. */
  wait(milliseconds: number): void;
  /** Whether the process lives on for what is still to come. */
  ref(): void;
  unref(): void;
  /** Ends our side; the other's end comes as id -1. */
  end(): void;
  /** Ends the connection at once; nothing is handed over any more. */
  destroy(): Promise<void>;
}
