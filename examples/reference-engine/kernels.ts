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

/** Rows of numbers in memory: where the first begins, and how far it is from one to the next. */
export interface Span {
  readonly values: Float32Array;
  readonly at: number;
  readonly stride: number;
}

/**
 * out[r][o] = dot(x[r], weight[o]) for rows r below `rows` and outputs `from` to `to`: the columns of `out` that a
 * tensor-parallel rank computes, 4 or more.
 */
export function project(
  x: Float32Array,
  rows: number,
  { columns, rows: outputs, values }: Matrix,
  out: Float32Array,
  from = 0,
  to = outputs,
): void {
  dots(
    { values: x, at: 0, stride: columns },
    rows,
    { values, at: from * columns, stride: columns },
    to - from,
    { values: out, at: from, stride: outputs },
    columns,
  );
}

/**
 * out[r][o] = dot(x[r], w[o]) for r below `rows` and o below `outputs` (4 or more), over `length` elements.
 *
 * Two rows meet four outputs at a time, so that what is read is used more than once and eight sums run side by side; each
 * sum is of one row and one output, element after element. Where rows or outputs do not come out even, the last of them
 * are computed again: the same code gives the same bits.
 */
export function dots(x: Span, rows: number, w: Span, outputs: number, out: Span, length: number): void {
  const { values: a } = x;
  const { values: b } = w;
  const { values: c } = out;
  for (let r = 0; r < rows; r += 2) {
    const r1 = Math.min(r + 1, rows - 1);
    const a0 = x.at + r * x.stride;
    const a1 = x.at + r1 * x.stride;
    for (let next = 0; next < outputs; next += 4) {
      const o = Math.min(next, outputs - 4);
      const b0 = w.at + o * w.stride;
      const b1 = b0 + w.stride;
      const b2 = b1 + w.stride;
      const b3 = b2 + w.stride;
      let s0 = 0;
      let s1 = 0;
      let s2 = 0;
      let s3 = 0;
      let t0 = 0;
      let t1 = 0;
      let t2 = 0;
      let t3 = 0;
      for (let i = 0; i < length; i++) {
        const p = a[a0 + i];
        const q = a[a1 + i];
        const v0 = b[b0 + i];
        const v1 = b[b1 + i];
        const v2 = b[b2 + i];
        const v3 = b[b3 + i];
        s0 += p * v0;
        s1 += p * v1;
        s2 += p * v2;
        s3 += p * v3;
        t0 += q * v0;
        t1 += q * v1;
        t2 += q * v2;
        t3 += q * v3;
      }
      const c0 = out.at + r * out.stride + o;
      c[c0] = s0;
      c[c0 + 1] = s1;
      c[c0 + 2] = s2;
      c[c0 + 3] = s3;
      const c1 = out.at + r1 * out.stride + o;
      c[c1] = t0;
      c[c1 + 1] = t1;
      c[c1 + 2] = t2;
      c[c1 + 3] = t3;
    }
  }
}

/** RMSNorm of each row: x / sqrt(mean(x^2) + 1e-6) * gain. */
export function rmsNorm(x: Float32Array, at: number, rows: number, gain: Float32Array, out: Float32Array): void {
  const width = gain.length;
  for (let r = 0; r < rows; r++) {
    const row = at + r * width;
    let squares = 0;
    for (let i = 0; i < width; i++) squares += x[row + i] * x[row + i];
    const scale = 1 / Math.sqrt(squares / width + 1e-6);
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
