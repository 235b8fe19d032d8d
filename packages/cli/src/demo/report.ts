/** Terminal pictures of a run. Every function returns text; colour only where it is asked for. */
import { type Column, informationContent, type Pwm } from './motifs.ts';
import { RECOVERED, type Recovery } from './recovery.ts';

export interface ReportOptions {
  /** ANSI colours; by default only where standard output is a terminal and NO_COLOR is not set. */
  readonly colour?: boolean;
}

const BASES = 'ACGT';
const BASE_COLOURS = [32, 34, 33, 31]; // sequence logos: A green, C blue, G orange, T red
const BOLD = 1;
const DIM = 2;
const GREEN = 32;
const RED = 31;

function wantsColour({ colour }: ReportOptions): boolean {
  return colour ?? (process.stdout.isTTY === true && !process.env.NO_COLOR);
}

function paint(text: string, code: number, colour: boolean): string {
  return colour ? `\u001b[${code}m${text}\u001b[0m` : text;
}

/**
 * The planted and the recovered matrix of each motif below each other:
 *
 *     CTCF  planted   CCGCG·GG·GGCAG
 *           filter 28 CCGCG·GG·GGCAG  r = 0.955, 413 sites, recovered
 */
export function motifTable(recoveries: readonly Recovery[], options: ReportOptions = {}): string {
  const colour = wantsColour(options);
  const width = Math.max(...recoveries.map(({ motif }) => motif.pwm.length));
  return recoveries
    .flatMap(({ motif, filter, sites, correlation, aligned }) => {
      const pad = ' '.repeat(width - motif.pwm.length);
      const verdict =
        correlation >= RECOVERED ? (['recovered', GREEN] as const) : (['not recovered', RED] as const);
      return [
        `${paint(motif.name.padEnd(5), BOLD, colour)} planted   ${logo(motif.pwm, { colour })}`,
        `      filter ${String(filter).padEnd(2)} ${logo(aligned, { colour })}${pad}  r = ${correlation.toFixed(3)}, ${sites} sites, ${paint(verdict[0], verdict[1], colour)}`,
      ];
    })
    .join('\n');
}

/**
 * A matrix as one row of letters: at each position its likeliest base, a capital from 1 bit of information, small from
 * 0.3 bits, a dot below.
 */
export function logo(pwm: Pwm, options: ReportOptions = {}): string {
  const colour = wantsColour(options);
  const bits = informationContent(pwm);
  return pwm
    .map((column, i) => {
      if (bits[i]! < 0.3) return paint('·', DIM, colour);
      const base = likeliest(column);
      const letter = BASES[base]!;
      return paint(bits[i]! < 1 ? letter.toLowerCase() : letter, BASE_COLOURS[base]!, colour);
    })
    .join('');
}

function likeliest(column: Column): number {
  return column.indexOf(Math.max(...column));
}

const BLOCKS = '▁▂▃▄▅▆▇█';

export interface SparklineOptions {
  /** What the lowest and the highest block stand for; by default the least and the greatest value. */
  readonly range?: readonly [low: number, high: number];
}

/** One block a value, low to high; a dot where it is not finite. */
export function sparkline(values: readonly number[], { range }: SparklineOptions = {}): string {
  const finite = values.filter(Number.isFinite);
  const [low, high] = range ?? [Math.min(...finite), Math.max(...finite)];
  const level = (value: number): number => {
    const share = high > low ? (value - low) / (high - low) : 0;
    return Math.max(0, Math.min(BLOCKS.length - 1, Math.floor(share * BLOCKS.length)));
  };
  return values.map((value) => (Number.isFinite(value) ? BLOCKS[level(value)]! : '·')).join('');
}

/** `Pearson r  ▁▃▅▇█  0.026 → 0.919`, blocks from 0 to 1. */
export function pearsonCurve(byEvaluation: readonly number[]): string {
  const [first, last] = [byEvaluation[0], byEvaluation.at(-1)].map((r) => (r ?? Number.NaN).toFixed(3));
  return `Pearson r  ${sparkline(byEvaluation, { range: [0, 1] })}  ${first} → ${last}`;
}

export interface TrackPlot {
  readonly name: string;
  /** In units, bin by bin. `[bins]` */
  readonly measured: ArrayLike<number>;
  readonly predicted: ArrayLike<number>;
}

/**
 * Measured above predicted for each track, on one scale from 0 to the larger maximum. Bins are averaged into at most
 * `columns` blocks.
 */
export function trackPlots(
  plots: readonly TrackPlot[],
  { columns = 64, ...options }: ReportOptions & { readonly columns?: number } = {},
): string {
  const colour = wantsColour(options);
  const width = Math.max(...plots.map(({ name }) => name.length));
  return plots
    .flatMap(({ name, measured, predicted }) => {
      const [above, below] = [binned(measured, columns), binned(predicted, columns)];
      const range = [0, Math.max(...above, ...below)] as const;
      return [
        `${paint(name.padEnd(width), BOLD, colour)} measured  ${sparkline(above, { range })}`,
        `${' '.repeat(width)} predicted ${paint(sparkline(below, { range }), GREEN, colour)}`,
      ];
    })
    .join('\n');
}

/** Means of `columns` pieces of nearly equal length; the values themselves where there are fewer. */
export function binned(values: ArrayLike<number>, columns: number): number[] {
  const count = Math.min(columns, values.length);
  const edge = (column: number): number => Math.round((column * values.length) / count);
  return Array.from({ length: count }, (_, column) => {
    const piece = Array.from(values).slice(edge(column), edge(column + 1));
    return piece.reduce((a, b) => a + b, 0) / piece.length;
  });
}
