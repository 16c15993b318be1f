/** Whether one of `count` i32 at `p` is negative. */
export function anyNegative(p: usize, count: u32): bool {
  const end = p + (<usize>count << 2);
  let bits = i64x2.splat(0);
  for (; p + 16 <= end; p += 16) bits = v128.or(bits, v128.load(p));
  let negative = i32x4.bitmask(bits) != 0;
  for (; p < end; p += 4) negative = negative || load<i32>(p) < 0;
  return negative;
}
