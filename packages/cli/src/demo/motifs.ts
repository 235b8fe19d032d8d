/** Binding motifs as probability matrices, and the published consensus sequences that the demonstration plants. */
import { mix } from '@cohesin/core';

/** Probabilities of A, C, G and T at one position; they add up to 1. */
export type Column = readonly [a: number, c: number, g: number, t: number];

/** A motif, position by position: [width, 4]. */
export type Pwm = readonly Column[];

export interface Motif {
  readonly name: 'CTCF' | 'GATA' | 'REB1';
  /** In IUPAC letters, 5′ to 3′. */
  readonly consensus: string;
  readonly pwm: Pwm;
}

/** Probability of each base that an IUPAC letter excludes; what is left is shared by those it allows. */
const EXCLUDED = 0.03;

const BASES = 'ACGT';
const IUPAC: Readonly<Record<string, string>> = {
  A: 'A',
  C: 'C',
  G: 'G',
  T: 'T',
  R: 'AG',
  Y: 'CT',
  S: 'CG',
  W: 'AT',
  K: 'GT',
  M: 'AC',
  B: 'CGT',
  D: 'AGT',
  H: 'ACT',
  V: 'ACG',
  N: 'ACGT',
};

/** The motifs that are planted, each matrix made from its consensus by `consensusPwm`. */
export const MOTIFS: readonly Motif[] = [
  motif('CTCF', 'CCGCGNGGNGGCAG'), // Kim et al. 2007, Cell 128:1231
  motif('GATA', 'WGATAR'), // Ko & Engel 1993, Mol. Cell. Biol. 13:4011; Merika & Orkin 1993, ibid. 13:3999
  motif('REB1', 'TTACCCG'), // Rhee & Pugh 2011, Cell 147:1408
];

function motif(name: Motif['name'], consensus: string): Motif {
  return { name, consensus, pwm: consensusPwm(consensus) };
}

/**
 * The matrix of a consensus: each base that a letter excludes has probability 0.03 and those it allows share the rest,
 * so a single base has 0.91, either of two 0.47, and N is 0.25 throughout.
 *
 * @throws when a letter is not IUPAC's
 */
export function consensusPwm(consensus: string): Pwm {
  return Array.from(consensus, (letter): Column => {
    const allowed = IUPAC[letter];
    if (allowed === undefined) {
      throw new Error(
        `consensus ${consensus}: '${letter}' is no IUPAC letter; use ${Object.keys(IUPAC).join('')}`,
      );
    }
    const share = (1 - EXCLUDED * (4 - allowed.length)) / allowed.length;
    return column((base) => (allowed.includes(BASES[base]!) ? share : EXCLUDED));
  });
}

/** The consensus of a matrix: the IUPAC letter of all bases with at least half the probability of the likeliest. */
export function consensusOf(pwm: Pwm): string {
  return pwm.map((probabilities) => letterOf(probabilities)).join('');
}

function letterOf(probabilities: Column): string {
  const least = Math.max(...probabilities) / 2;
  const allowed = Array.from(BASES)
    .filter((_, base) => probabilities[base]! >= least)
    .join('');
  return Object.entries(IUPAC).find(([, bases]) => bases === allowed)![0];
}

/** The same motif read on the other strand. */
export function reverseComplement(pwm: Pwm): Pwm {
  return pwm.toReversed().map(([a, c, g, t]): Column => [t, g, c, a]);
}

/** One instance: codes 0..3 for A, C, G, T, each position drawn by a hash of `key` and its index. `[width]` */
export function sample(pwm: Pwm, key: number): Uint8Array {
  return Uint8Array.from(pwm, (probabilities, i) => draw(probabilities, uniform(key, i)));
}

/** The outcome that a number in [0, 1) falls on. */
export function draw(probabilities: readonly number[], at: number): number {
  let below = 0;
  for (let outcome = 0; outcome < probabilities.length - 1; outcome++) {
    below += probabilities[outcome]!;
    if (at < below) return outcome;
  }
  return probabilities.length - 1;
}

/** A number in [0, 1) that depends on the key and the counter only. */
export function uniform(key: number, counter: number): number {
  return mix(key, counter) / 2 ** 32;
}

/** Bits at each position above a uniform background, Σ p · log2(p / 0.25): 0 to 2. `[width]` */
export function informationContent(pwm: Pwm): readonly number[] {
  return pwm.map((probabilities) =>
    probabilities.reduce((bits, p) => bits + (p === 0 ? 0 : p * Math.log2(4 * p)), 0),
  );
}

/** Log-odds over a uniform background, ln(p / 0.25), row-major; the row of N is absent: it scores 0. `[width, 4]` */
export function logOdds(pwm: Pwm): Float64Array {
  return Float64Array.from(pwm.flat(), (p) => Math.log(4 * p));
}

function column(probability: (base: number) => number): Column {
  return [probability(0), probability(1), probability(2), probability(3)];
}
