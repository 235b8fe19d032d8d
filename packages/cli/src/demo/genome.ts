/**
 * A simulated genome: random DNA with planted motifs, and measured tracks that follow from the DNA by a stated grammar.
 *
 * - DNA: a Markov chain of order 1 with 42 % GC and few CpG, as in vertebrates. Instances drawn from the motifs'
 *   matrices replace it at random distances, on either strand.
 * - Sites: wherever a matrix scores at least 0.75 of its maximum, on either strand, planted or spelled by chance. Their
 *   strength is that share: with these matrices, perfect matches of GATA and REB1 and up to one mismatch of CTCF.
 * - Tracks: `accessibility` has a peak at each GATA site, 2.5 times as high where another lies within 150 bp;
 *   `ctcf` has two shoulders around each CTCF site, with a footprint between; `reb1` has a narrow peak at each REB1 site;
 *   `activity` has the peaks of GATA, lowered to 0.1 where REB1 lies within 100 bp, and half of those of CTCF.
 * - Counts: a baseline and the peaks, averaged over each bin, are the mean of a Poisson count at 8 reads a unit.
 */
import { mix } from '@cohesin/core';
import { type DatasetExample, f32ToF16, type TargetTrack } from '@cohesin/io';
import { draw, logOdds, MOTIFS, type Motif, reverseComplement, sample, uniform } from './motifs.ts';

export interface GenomeOptions {
  readonly seed: number;
  /** Sequences of each split; each split is a chromosome of its own. */
  readonly sequences: Readonly<Record<string, number>>;
  readonly lengthBp: number;
  readonly binBp: number;
}

/** A place that a protein binds. */
export interface Site {
  readonly motif: Motif['name'];
  /** Middle of the site, in bp from the start of the sequence. */
  readonly centreBp: number;
  /** 0.75 to 1. */
  readonly strength: number;
}

interface Track {
  readonly name: string;
  readonly description: string;
  /** Height of the peak that a site makes, given all sites of the sequence. */
  readonly height: (site: Site, sites: readonly Site[]) => number;
}

const COOPERATION_BP = 150;
const COOPERATION = 2.5;
const REPRESSION_BP = 100;
const REPRESSION = 0.1;
const BASELINE = 0.2;
const READS_PER_UNIT = 8;

/** What is measured. Means are near 1. */
export const TRACKS: readonly Track[] = [
  {
    name: 'accessibility',
    description: 'GATA sites; pairs within 150 bp cooperate',
    height: (site, sites) =>
      site.motif === 'GATA' ? 2 * (near(site, sites, 'GATA', COOPERATION_BP) ? COOPERATION : 1) : 0,
  },
  {
    name: 'ctcf',
    description: 'CTCF sites, with a footprint',
    height: ({ motif }) => (motif === 'CTCF' ? 6 : 0),
  },
  { name: 'reb1', description: 'REB1 sites', height: ({ motif }) => (motif === 'REB1' ? 8 : 0) },
  {
    name: 'activity',
    description: 'GATA sites, repressed by REB1 within 100 bp, and CTCF',
    height: (site, sites) => {
      if (site.motif === 'GATA') return 4 * (near(site, sites, 'REB1', REPRESSION_BP) ? REPRESSION : 1);
      return site.motif === 'CTCF' ? 3 : 0;
    },
  },
];

function near(site: Site, sites: readonly Site[], motif: Motif['name'], withinBp: number): boolean {
  return sites.some(
    (other) =>
      other !== site && other.motif === motif && Math.abs(other.centreBp - site.centreBp) <= withinBp,
  );
}

/** How a site's peak falls off with the distance in bp, both ways. */
const PROFILES: Readonly<Record<Motif['name'], (distanceBp: number) => number>> = {
  CTCF: (d) => gaussian(d, 70) - 0.8 * gaussian(d, 20),
  GATA: (d) => gaussian(d, 30),
  REB1: (d) => gaussian(d, 20),
};
const REACH_BP = 250; // beyond it every profile is below 0.2 % of its height

function gaussian(distance: number, sd: number): number {
  return Math.exp(-0.5 * (distance / sd) ** 2);
}

/** The rows of `targets.txt`. */
export function trackTable(): Omit<TargetTrack, 'columns'>[] {
  return TRACKS.map(({ name, description }) => ({ identifier: name, description }));
}

/** All sequences, split by split: each the same whichever are made before it. */
export function* simulateDataset(options: GenomeOptions): Generator<DatasetExample, void, undefined> {
  for (const [split, count] of Object.entries(options.sequences)) {
    for (let index = 0; index < count; index++) yield simulateExample(options, split, index);
  }
}

/** Sequence `index` of a split: DNA [lengthBp] and targets in f16 [lengthBp / binBp, tracks]. */
export function simulateExample(options: GenomeOptions, split: string, index: number): DatasetExample {
  const { key, ...place } = simulateStretch(options, split, index);
  const expected = expectedSignal(findSites(place.sequence), options.lengthBp, options.binBp);
  const values = measure(expected, mix(key, COUNTS));
  return { ...place, targets: { dtype: 'f16', data: f32ToF16(values) } };
}

/** DNA and place of sequence `index` of a split, and the key that further draws for it come from. */
export function simulateStretch(
  { seed, sequences, lengthBp, binBp }: GenomeOptions,
  split: string,
  index: number,
): Omit<DatasetExample, 'targets'> & { readonly key: number } {
  if (!Number.isInteger(lengthBp / binBp)) {
    throw new Error(`simulated genome: ${lengthBp} bp are not whole bins of ${binBp} bp; change lengthBp`);
  }
  const chromosome = Object.keys(sequences).indexOf(split) + 1;
  const key = mix(mix(seed, chromosome), index);
  return {
    split,
    chrom: `chr${chromosome}`,
    startBp: index * lengthBp,
    endBp: (index + 1) * lengthBp,
    sequence: simulateDna(lengthBp, key),
    key,
  };
}

// Constants of their own keep the draws of different things apart.
const DNA = 1;
const PLANTS = 2;
const COUNTS = 3;

/** Probability of each base after A, C, G and T. */
const NEXT_BASE = [
  [0.32, 0.18, 0.24, 0.26],
  [0.35, 0.26, 0.05, 0.34],
  [0.28, 0.22, 0.26, 0.24],
  [0.21, 0.2, 0.24, 0.35],
];

const PLANTED_PER_KB = 6;

/** DNA with motifs planted on both strands: codes 0..3. `[lengthBp]` */
export function simulateDna(lengthBp: number, key: number): Uint8Array {
  const sequence = new Uint8Array(lengthBp);
  const bases = mix(key, DNA);
  for (let i = 0, previous = bases & 3; i < lengthBp; i++) {
    previous = draw(NEXT_BASE[previous]!, uniform(bases, i));
    sequence[i] = previous;
  }
  plant(sequence, mix(key, PLANTS));
  return sequence;
}

/** Motifs at exponentially distributed distances; which one and which strand are even chances. */
function plant(sequence: Uint8Array, key: number): void {
  let at = 0;
  for (let i = 0; ; i++) {
    const own = mix(key, i);
    at += Math.floor((-Math.log(1 - uniform(own, 0)) * 1000) / PLANTED_PER_KB);
    const { pwm } = MOTIFS[mix(own, 1) % MOTIFS.length]!;
    const instance = sample(mix(own, 2) & 1 ? pwm : reverseComplement(pwm), mix(own, 3));
    if (at + instance.length > sequence.length) return;
    sequence.set(instance, at);
    at += instance.length;
  }
}

const SITE_SCORE = 0.75;

/** All sites of a sequence, by motif and position; one that reads the same on both strands counts once. */
export function findSites(sequence: Uint8Array): readonly Site[] {
  return MOTIFS.flatMap(({ name, pwm }) => {
    const forward = logOdds(pwm);
    const backward = logOdds(reverseComplement(pwm));
    const best = maximumScore(forward);
    const sites: Site[] = [];
    for (let start = 0; start + pwm.length <= sequence.length; start++) {
      const strength = Math.max(score(forward, sequence, start), score(backward, sequence, start)) / best;
      if (strength >= SITE_SCORE)
        sites.push({ motif: name, centreBp: start + (pwm.length - 1) / 2, strength });
    }
    return sites;
  });
}

function maximumScore(scores: Float64Array): number {
  let total = 0;
  for (let row = 0; row < scores.length; row += 4) total += Math.max(...scores.subarray(row, row + 4));
  return total;
}

function score(scores: Float64Array, sequence: Uint8Array, start: number): number {
  let total = 0;
  for (let row = 0; 4 * row < scores.length; row++) {
    const code = sequence[start + row]!;
    if (code < 4) total += scores[4 * row + code]!;
  }
  return total;
}

/** The mean of each bin's count, in units: baseline and the peaks of all sites. Row-major `[bins, tracks]` */
export function expectedSignal(sites: readonly Site[], lengthBp: number, binBp: number): Float64Array {
  const signal = new Float64Array((lengthBp / binBp) * TRACKS.length).fill(BASELINE);
  for (const [track, { height }] of TRACKS.entries()) {
    for (const site of sites) {
      const peak = (site.strength * height(site, sites)) / binBp;
      if (peak === 0) continue;
      const last = Math.min(lengthBp - 1, Math.floor(site.centreBp + REACH_BP));
      for (let bp = Math.max(0, Math.ceil(site.centreBp - REACH_BP)); bp <= last; bp++) {
        const bin = Math.floor(bp / binBp);
        signal[bin * TRACKS.length + track]! += peak * PROFILES[site.motif](bp - site.centreBp);
      }
    }
  }
  return signal;
}

/** Poisson counts around the expected values, in units. Each is drawn by a hash of the key and its index. */
function measure(expected: Float64Array, key: number): Float32Array {
  return Float32Array.from(
    expected,
    (mean, i) => poissonQuantile(mean * READS_PER_UNIT, uniform(key, i)) / READS_PER_UNIT,
  );
}

/** The least count whose cumulative probability exceeds `at`, a number in [0, 1). */
export function poissonQuantile(mean: number, at: number): number {
  let probability = Math.exp(-mean);
  let cumulative = probability;
  let count = 0;
  while (cumulative <= at && probability > 0) {
    count++;
    probability *= mean / count;
    cumulative += probability;
  }
  return count;
}
