import { percent } from '../page-parts.ts';
import { openBigWig } from '../track.ts';
import type { InspectOptions } from './inspect.ts';
import { brief, type Notes } from './inspection.ts';

const STEP_BP = 2 ** 20;
const CURVE_POINTS = 500;
const SHOWN = 30;

/** A bigWig: chromosomes, and every value read. */
export async function inspectBigWig(path: string, notes: Notes, { quick }: InspectOptions): Promise<void> {
  notes.what = 'bigWig or bigBed';
  const track = await openBigWig(path);
  try {
    const chromosomes = [...track.chromosomes];
    notes.what = `bigWig track on ${chromosomes.length} chromosomes`;
    const rows: string[][] = [];
    for (const [i, [chrom, length]] of (quick ? chromosomes.slice(0, 1) : chromosomes).entries()) {
      const counts = {
        sum: 0,
        covered: 0,
        zeros: 0,
        max: Number.NEGATIVE_INFINITY,
        min: Number.POSITIVE_INFINITY,
      };
      const curve = new Float64Array(CURVE_POINTS);
      for (let start = 0; start < length; start += STEP_BP) {
        const values = await track.read(chrom, start, Math.min(length, start + STEP_BP));
        for (let bp = 0; bp < values.length; bp++) {
          const value = values[bp]!;
          if (Number.isNaN(value)) continue;
          counts.covered++;
          counts.sum += value;
          if (value === 0) counts.zeros++;
          if (value > counts.max) counts.max = value;
          if (value < counts.min) counts.min = value;
          curve[Math.floor(((start + bp) / length) * CURVE_POINTS)]! += (value * CURVE_POINTS) / length;
        }
      }
      const { sum, covered, zeros, max, min } = counts;
      const range = covered === 0 ? ['', '', ''] : [brief(sum / covered), brief(min), brief(max)];
      if (i < SHOWN)
        rows.push([
          chrom,
          length.toLocaleString('en'),
          percent(1 - covered / length),
          percent(zeros / length),
          ...range,
        ]);
      if (covered === 0) notes.warnings.push(`${chrom} has no values`);
      if (!Number.isFinite(sum)) notes.problems.push(`${path}: ${chrom} has infinite values`);
      if (i === 0) notes.curves.push({ name: chrom, values: [...curve] });
    }
    notes.tables.push({ header: ['chromosome', 'bp', 'no value', 'zero', 'mean', 'min', 'max'], rows });
    if (rows.length < chromosomes.length)
      notes.fact('chromosomes not shown', chromosomes.length - rows.length);
  } finally {
    await track.close();
  }
}
