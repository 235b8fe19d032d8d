/**
 * Kernels over the lines of a tensor along one axis (rows, where it is the last): an invocation goes over one line from
 * end to end, as often as it needs to, so that the order of every sum is fixed and nothing is shared between lanes.
 * A workgroup with barriers for each row took 2 to 5 times as long on a software driver.
 */
import { elementCount } from '../host-tensor.ts';
import type { KernelBody } from '../kernel.ts';
import type { Range } from '../op.ts';
import { isNan } from '../ops/curve.ts';
import { wgsl } from '../wgsl.ts';
import { box, digits, spans } from './touches.ts';

const LANES = 32; // few, so that 1,536 rows still occupy 48 multiprocessors

/** Where the elements of lines are: `inner` lines lie side by side, `outer` such blocks follow each other. */
export interface Lines {
  readonly outer: number;
  readonly count: number;
  readonly inner: number;
}

export function linesAlong(shape: readonly number[], axis: number): Lines {
  return {
    outer: elementCount(shape.slice(0, axis)),
    count: shape[axis]!,
    inner: elementCount(shape.slice(axis + 1)),
  };
}

/** WGSL pieces of a kernel that takes one element of a line at a time, or four where they lie side by side. */
export interface LineCode {
  /** Type of what `load` gives: one element, four of one line, or one each of four lines. */
  readonly type: 'f32' | 'vec4f';
  /** A loop over the line; in its body `at` is where its elements are and `k` their place in the line. */
  loop(body: string | readonly string[]): string;
  /** Element `at` of an input of the lines' shape. */
  load(input: string): string;
  /** The line's first element, before any loop. */
  first(input: string): string;
  /** Element `k` of an input that is one line itself. Lines must be rows. */
  loadShared(input: string): string;
  /** One result for a line from what `type` variable `v` has gathered over it. */
  total(v: string, combine: Combine): string;
  /** exp of a `type` and log of a total, which pass NaN on. */
  exp(value: string): string;
  log(total: string): string;
  store(value: string): string;
  /** Stores one value for the line. */
  storeLine(value: string): string;
}

export type Combine = (a: string, b: string) => string;
export const plus: Combine = (a, b) => `(${a} + ${b})`;
export const larger: Combine = (a, b) => `max(${a}, ${b})`;

/** What the lines are taken from and go to. */
export interface LineOperands {
  /** Inputs read by `load` and `loadShared`. */
  readonly inputs: readonly string[];
  /** Whether the output has one value for each line instead of the shape of the lines. */
  readonly reduces?: boolean;
}

/** A kernel with one invocation for each line, or for four that lie side by side. */
export function lineKernel(
  { outer, count, inner }: Lines,
  { inputs, reduces = false }: LineOperands,
  body: (code: LineCode) => string,
): KernelBody {
  const along = inner === 1 && count % 4 === 0;
  const across = inner % 4 === 0;
  const suffix = along || across ? '4' : '';
  const length = along ? count / 4 : count;
  const beside = across ? inner / 4 : inner;
  const wideStore = across || (along && !reduces);
  const base =
    beside === 1 ? `line * ${length}u` : `line / ${beside}u * ${length * beside}u + line % ${beside}u`;
  const ofLines = new Set<string>();
  const loaded = (input: string, text: string): string => {
    ofLines.add(input);
    return text;
  };
  const code: LineCode = {
    type: suffix === '' ? 'f32' : 'vec4f',
    loop: (text) => wgsl`
      for (var k = 0u; k < ${length}u; k++) {
        let at = base + k${beside === 1 ? '' : ` * ${beside}u`};
        ${text}
      }`,
    load: (input) => loaded(input, `load${suffix}_${input}(at)`),
    first: (input) => loaded(input, along ? `load4_${input}(base).x` : `load${suffix}_${input}(base)`),
    loadShared: (input) => `load${suffix}_${input}(k)`,
    total: (v, combine) => (along ? combine(combine(`${v}.x`, `${v}.y`), combine(`${v}.z`, `${v}.w`)) : v),
    exp: (value) => `safe_exp${suffix}(${value})`,
    log: (total) => `safe_log${across ? '4' : ''}(${total})`,
    store: (value) => `store${suffix}(at, ${value});`,
    storeLine: (value) => `store${wideStore ? '4' : ''}(line, ${value});`,
  };
  const lines = outer * beside;
  const text = wgsl`
    let line = wg * ${LANES}u + lane;
    if (line < ${lines}u) {
      let base = ${base};
      ${body(code)}
    }`;
  const touches: KernelBody['touches'] = (from, to) => {
    const line = spans([from, to], LANES, lines);
    const [column, outer] = digits(line, [beside]) as [Range, Range];
    const width = across ? 4 : 1;
    const all = box({ outer, row: [0, count], column: spans(column, width) }, count, inner);
    const inputs = [...ofLines].map((input) => [input, all] as const);
    return { ...Object.fromEntries(inputs), y: reduces ? spans(line, width) : all };
  };
  return {
    body: text,
    touches,
    declarations: SAFE,
    workgroupSize: LANES,
    workgroups: Math.ceil(lines / LANES),
    vec4: [...(suffix === '' ? [] : inputs), ...(wideStore ? ['y'] : [])],
  };
}

/** exp and log that pass NaN on, which drivers' own need not. */
export const SAFE: string = ['exp', 'log']
  .flatMap((name) => [
    `fn safe_${name}(x: f32) -> f32 { return select(${name}(x), x, ${isNan('x')}); }`,
    `fn safe_${name}4(x: vec4f) -> vec4f { return vec4f(safe_${name}(x.x), safe_${name}(x.y), safe_${name}(x.z), safe_${name}(x.w)); }`,
  ])
  .join('\n');
