/**
 * The one place where the books tell what must outlive the process (docs/persistence.md). It is told what the tables say
 * from now on, never how a call came to it: whoever adds a way to change copies tells it `kept` or `lost`, no more.
 */
import type { Segment } from './segments.js';

export interface Journal {
  mounted(segment: Segment): void;
  /** All copies in it are gone; nothing is told of each. */
  unmounted(segment: Segment): void;
  /** Somebody may write to these allocations until then, whether or not an object comes of it. */
  reserved(handles: readonly number[], until: number): void;
  /** Nobody writes to them any more, and no object came of it. */
  released(handles: readonly number[]): void;
  /** An object is readable, and is what its record says now. */
  kept(id: number): void;
  /** The content of an object is about to go. */
  lost(id: number): void;
}
