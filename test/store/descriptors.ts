/** Copies between objects and memory, written short. */
import type { Descriptors } from 'mooncake-ts';
import { descriptorsOf } from '../support/descriptors.js';

export interface Copy {
  source: [segment: number, offset: number];
  destination: [segment: number, offset: number];
  length: number;
}

export function descriptors(copies: readonly Copy[]): Descriptors {
  return descriptorsOf(
    copies.map(({ source, destination, length }) => ({
      sourceSegment: source[0],
      sourceOffset: source[1],
      destinationSegment: destination[0],
      destinationOffset: destination[1],
      length,
    })),
  );
}
