/**
 * Kernels over the lines of a tensor along one axis (rows, where it is the last): an invocation goes over one line from
 * end to end, as often as it needs to, so that the order of every sum is fixed and nothing is shared between lanes.
 * On GPUs a workgroup takes a long row together, or neighbours would read addresses that are a row apart; its totals are
 * a tree in workgroup memory, of one order whatever the subgroups. That took 2 to 5 times as long on a software driver.
 */
import { elementCount } from '../host-tensor.ts';
import type { KernelBody, KernelTarget } from '../kernel.ts';
import type { Range } from '../op.ts';
import { isNan } from '../ops/curve.ts';
import { wgsl } from '../wgsl.ts';
import { box, digits, spans } from './touches.ts';

const LANES = 32; // few, so that 1,536 lines still occupy 48 multiprocessors
const TOGETHER = 64; // invocations to a row
/** Rows shorter than this are not worth a workgroup: not every invocation would have a vector. */
const LONG = 4 * TOGETHER;

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
  total(v: string, fold: Fold): string;
  /** exp of a `type` and log of a total, which pass NaN on. */
  exp(value: string): string;
  log(total: string): string;
  store(value: string): string;
  /** Stores one value for the line. */
  storeLine(value: string): string;
}

export const plus = (a: string, b: string): string => `(${a} + ${b})`;
export const larger = (a: string, b: string): string => `max(${a}, ${b})`;
/** How the elements of a line combine. */
export type Fold = 'plus' | 'larger';
const FOLDS: Readonly<Record<Fold, (a: string, b: string) => string>> = { plus, larger };

/** What the lines are taken from and go to. */
export interface LineOperands {
  /** Inputs read by `load` and `loadShared`. */
  readonly inputs: readonly string[];
  /** Whether the output has one value for each line instead of the shape of the lines. */
  readonly reduces?: boolean;
}

/** A kernel with one invocation for each line or for four that lie side by side, or a workgroup for a long row. */
export function lineKernel(
  { outer, count, inner }: Lines,
  { inputs, reduces = false }: LineOperands,
  target: KernelTarget,
  body: (code: LineCode) => string,
): KernelBody {
  const together = target.kind !== 'software' && inner === 1 && count >= LONG;
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
      for (var k = ${together ? 'lane' : '0u'}; k < ${length}u; k += ${together ? TOGETHER : 1}u) {
        let at = base + k${beside === 1 ? '' : ` * ${beside}u`};
        ${text}
      }`,
    load: (input) => loaded(input, `load${suffix}_${input}(at)`),
    first: (input) => loaded(input, along ? `load4_${input}(base).x` : `load${suffix}_${input}(base)`),
    loadShared: (input) => `load${suffix}_${input}(k)`,
    total: (v, fold) => {
      const of = FOLDS[fold];
      const own = along ? of(of(`${v}.x`, `${v}.y`), of(`${v}.z`, `${v}.w`)) : v;
      return together ? `total_${fold}(lane, ${own})` : own;
    },
    exp: (value) => `safe_exp${suffix}(${value})`,
    log: (total) => `safe_log${across ? '4' : ''}(${total})`,
    store: (value) => `store${suffix}(at, ${value});`,
    storeLine: (value) =>
      together
        ? `if (lane == 0u) { store(line, ${value}); }`
        : `store${wideStore ? '4' : ''}(line, ${value});`,
  };
  const lines = outer * beside;
  const each = wgsl`
    let line = wg * ${LANES}u + lane;
    if (line < ${lines}u) {
      let base = ${base};
      ${body(code)}
    }`;
  const row = wgsl`
    let line = wg;
    let base = ${base};
    ${body(code)}`;
  const perWorkgroup = together ? 1 : LANES;
  const touches: KernelBody['touches'] = (from, to) => {
    const line = spans([from, to], perWorkgroup, lines);
    const [column, outer] = digits(line, [beside]) as [Range, Range];
    const width = across ? 4 : 1;
    const all = box({ outer, row: [0, count], column: spans(column, width) }, count, inner);
    const inputs = [...ofLines].map((input) => [input, all] as const);
    return { ...Object.fromEntries(inputs), y: reduces ? spans(line, width) : all };
  };
  return {
    body: together ? row : each,
    declarations: together ? `${SAFE}\n${TOTALS}` : SAFE,
    workgroupSize: together ? TOGETHER : LANES,
    workgroups: Math.ceil(lines / perWorkgroup),
    vec4: [...(suffix === '' ? [] : inputs), ...(wideStore ? ['y'] : [])],
    touches,
  };
}

/** Totals over a workgroup: halves are folded onto each other. */
const TOTALS: string = [
  `var<workgroup> totals: array<f32, ${TOGETHER}>;`,
  ...Object.entries(FOLDS).map(
    ([fold, of]) => wgsl`
      fn total_${fold}(lane: u32, own: f32) -> f32 {
        totals[lane] = own;
        workgroupBarrier(); // all results are there
        for (var half = ${TOGETHER / 2}u; half > 0u; half /= 2u) {
          if (lane < half) { totals[lane] = ${of('totals[lane]', 'totals[lane + half]')}; }
          workgroupBarrier(); // this half is folded
        }
        let total = totals[0];
        workgroupBarrier(); // all have read before the next total begins
        return total;
      }`,
  ),
].join('\n');

/** exp and log that pass NaN on, which drivers' own need not. */
export const SAFE: string = ['exp', 'log']
  .flatMap((name) => [
    `fn safe_${name}(x: f32) -> f32 { return select(${name}(x), x, ${isNan('x')}); }`,
    `fn safe_${name}4(x: vec4f) -> vec4f { return vec4f(safe_${name}(x.x), safe_${name}(x.y), safe_${name}(x.z), safe_${name}(x.w)); }`,
  ])
  .join('\n');
