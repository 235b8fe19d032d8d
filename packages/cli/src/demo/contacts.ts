/**
 * Contact maps of the simulated genome, in which CTCF insulates: the sites that make peaks in its tracks also keep apart
 * what lies on either side.
 *
 * log(observed / expected) of two bins is 0.5 times what their stretch lacks in CTCF sites, by strength, between the bins'
 * middles: the sites of a stretch as long at the sequence's own density, less those that are there. Normal noise of
 * standard deviation 0.2 is added, and logarithms end at ±2.
 */
import { mix } from '@cohesin/core';
import { type DatasetExample, f32ToF16 } from '@cohesin/io';
import { findSites, type GenomeOptions, type Site, simulateStretch } from './genome.ts';
import { uniform } from './motifs.ts';

const INSULATION = 0.5;
const NOISE = 0.2;
const CLIP = 2; // akita_data_read.py
/** The first diagonal that is a target. */
export const DIAGONAL_OFFSET = 2;

const NOISES = 4; // beside the constants of genome.ts

/** All maps, split by split, as the upper triangle row by row in f16 `[pairs, 1]`. */
export function* simulateMaps(options: GenomeOptions): Generator<DatasetExample, void, undefined> {
  for (const [split, count] of Object.entries(options.sequences)) {
    for (let index = 0; index < count; index++) {
      const { key, ...place } = simulateStretch(options, split, index);
      const expected = expectedContacts(findSites(place.sequence), options.lengthBp, options.binBp);
      const values = expected.map((value, pair) => clip(value + NOISE * normal(mix(key, NOISES), pair)));
      yield { ...place, targets: { dtype: 'f16', data: f32ToF16(values) } };
    }
  }
}

/** log(observed / expected) without noise, of bins at least 2 apart: rows first. `[pairs]` */
export function expectedContacts(sites: readonly Site[], lengthBp: number, binBp: number): Float64Array {
  const bins = lengthBp / binBp;
  const before = strengthBefore(sites, bins, binBp);
  const perBin = sites.reduce((sum, site) => sum + insulating(site), 0) / bins;
  const values: number[] = [];
  for (let i = 0; i < bins; i++)
    for (let j = i + DIAGONAL_OFFSET; j < bins; j++)
      values.push(INSULATION * (perBin * (j - i) - (before[j]! - before[i]!)));
  return Float64Array.from(values);
}

const insulating = ({ motif, strength }: Site): number => (motif === 'CTCF' ? strength : 0);

/** The strength of all CTCF sites before the middle of each bin. `[bins]` */
function strengthBefore(sites: readonly Site[], bins: number, binBp: number): Float64Array {
  return Float64Array.from({ length: bins }, (_, bin) => {
    const middleBp = (bin + 0.5) * binBp;
    return sites.reduce((sum, site) => sum + (site.centreBp < middleBp ? insulating(site) : 0), 0);
  });
}

const clip = (value: number): number => Math.max(-CLIP, Math.min(CLIP, value));

/** A draw from the standard normal distribution by a hash of key and counter (Box & Muller 1958). */
function normal(key: number, counter: number): number {
  const radius = Math.sqrt(-2 * Math.log(1 - uniform(key, 2 * counter)));
  return radius * Math.cos(2 * Math.PI * uniform(key, 2 * counter + 1));
}
