/** Sorting by numbers that are too many for comparisons one by one: a radix sort, linear in their count, stable. */

const DIGIT = 2 ** 16;

/** The places 0 to count - 1 in rising order of their number, an integer from 0 to 2^48 - 1; `order` is used up. */
export function sortBy(order: Uint32Array, numbers: Float64Array | Uint16Array): Uint32Array {
  let largest = 0;
  for (const at of order) if (numbers[at] > largest) largest = numbers[at];
  let from = order;
  let to: Uint32Array = new Uint32Array(order.length);
  const starts = new Uint32Array(DIGIT);
  for (let unit = 1; unit <= largest; unit *= DIGIT) {
    starts.fill(0);
    for (const at of from) starts[Math.floor(numbers[at] / unit) % DIGIT]++;
    let sum = 0;
    for (let digit = 0; digit < DIGIT; digit++) {
      const count = starts[digit];
      starts[digit] = sum;
      sum += count;
    }
    for (const at of from) to[starts[Math.floor(numbers[at] / unit) % DIGIT]++] = at;
    [from, to] = [to, from];
  }
  return from;
}

/** 0 to count - 1. */
export function inTurn(count: number): Uint32Array {
  const order = new Uint32Array(count);
  for (let at = 0; at < count; at++) order[at] = at;
  return order;
}
