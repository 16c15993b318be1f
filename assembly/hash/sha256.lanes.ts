// SHA-256 of four messages at once, one in each 32-bit lane of a vector: state and digests around compress4 of
// sha256.rounds.ts. A compression of four costs about twice a scalar one, so it pays from two messages on.
import { INITIAL } from './sha256';
import { swapWords } from './sha256.rounds';

/** The initial state in every lane: eight vectors at `state`, one for each word. */
export function start4(state: usize): void {
  for (let i: usize = 0; i < 8; i++) v128.store(state + (i << 4), v128.load_splat<u32>(INITIAL + (i << 2)));
}

/** The digests of all lanes, 32 bytes each, at `out`. */
export function digest4(state: usize, out: usize): void {
  for (let half: usize = 0; half < 32; half += 16, state += 64) {
    const a = v128.load(state), b = v128.load(state, 16), c = v128.load(state, 32), d = v128.load(state, 48);
    const p = swapWords(v128.shuffle<u32>(a, b, 0, 4, 1, 5)), q = swapWords(v128.shuffle<u32>(c, d, 0, 4, 1, 5));
    const r = swapWords(v128.shuffle<u32>(a, b, 2, 6, 3, 7)), s = swapWords(v128.shuffle<u32>(c, d, 2, 6, 3, 7));
    v128.store(out + half, v128.shuffle<u64>(p, q, 0, 2));
    v128.store(out + half, v128.shuffle<u64>(p, q, 1, 3), 32);
    v128.store(out + half, v128.shuffle<u64>(r, s, 0, 2), 64);
    v128.store(out + half, v128.shuffle<u64>(r, s, 1, 3), 96);
  }
}
