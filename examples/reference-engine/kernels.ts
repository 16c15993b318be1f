/**
 * The arithmetic of the model, as plain loops over typed arrays. Every result is a function of its own row alone, summed
 * in one fixed order: whether a token is computed by itself, in a chunk of a prompt or beside other requests, its numbers
 * are the same to the last bit. (Sums are in double precision, stored as float32.)
 */

/** Rows of equal length, one after another. */
export interface Matrix {
  readonly rows: number;
  readonly columns: number;
  readonly values: Float32Array;
}

/**
 * out[r][o] = dot(x[r], weight[o]) for rows r below `rows` and outputs `from` to `to`: the columns of `out` that a
 * tensor-parallel rank computes. `columns` is a multiple of 4.
 */
export function project(
  x: Float32Array,
  rows: number,
  { columns, rows: outputs, values }: Matrix,
  out: Float32Array,
  from = 0,
  to = outputs,
): void {
  for (let r = 0; r < rows; r++) {
    const row = r * columns;
    for (let o = from; o < to; o++) {
      out[r * outputs + o] = dot(x, row, values, o * columns, columns);
    }
  }
}

/** Dot product in four sums, which a processor adds side by side. `length` is a multiple of 4. */
export function dot(a: Float32Array, atA: number, b: Float32Array, atB: number, length: number): number {
  let s0 = 0;
  let s1 = 0;
  let s2 = 0;
  let s3 = 0;
  for (let i = 0; i < length; i += 4) {
    s0 += a[atA + i] * b[atB + i];
    s1 += a[atA + i + 1] * b[atB + i + 1];
    s2 += a[atA + i + 2] * b[atB + i + 2];
    s3 += a[atA + i + 3] * b[atB + i + 3];
  }
  return s0 + s1 + (s2 + s3);
}

/** RMSNorm of each row: x / sqrt(mean(x^2) + 1e-6) * gain. */
export function rmsNorm(x: Float32Array, at: number, rows: number, gain: Float32Array, out: Float32Array): void {
  const width = gain.length;
  for (let r = 0; r < rows; r++) {
    const row = at + r * width;
    const scale = 1 / Math.sqrt(dot(x, row, x, row, width) / width + 1e-6);
    for (let i = 0; i < width; i++) out[r * width + i] = x[row + i] * scale * gain[i];
  }
}

/** x[at + i] += y[i]. */
export function add(x: Float32Array, at: number, y: Float32Array, length: number): void {
  for (let i = 0; i < length; i++) x[at + i] += y[i];
}

/** SwiGLU: gate = silu(gate) * up. */
export function swiglu(gate: Float32Array, up: Float32Array, length: number): void {
  for (let i = 0; i < length; i++) gate[i] = (gate[i] / (1 + Math.exp(-gate[i]))) * up[i];
}
