import { openGenome } from '../genome.ts';
import { percent } from '../page-parts.ts';
import type { InspectOptions } from './inspect.ts';
import type { Notes } from './inspection.ts';

const STEP_BP = 2 ** 20;
const SHOWN = 30;
const CURVE_POINTS = 500;

/** FASTA or 2bit: chromosomes, and every base read. */
export async function inspectGenome(path: string, notes: Notes, { quick }: InspectOptions): Promise<void> {
  notes.what = 'genome';
  const genome = await openGenome(path);
  try {
    const chromosomes = [...genome.chromosomes];
    const total = chromosomes.reduce((sum, [, length]) => sum + length, 0);
    notes.what = `genome in ${genome.format}: ${chromosomes.length} sequences, ${total.toLocaleString('en')} bp`;
    const bases = new Float64Array(5);
    const rows: string[][] = [];
    for (const [i, [chrom, length]] of (quick ? chromosomes.slice(0, 1) : chromosomes).entries()) {
      const own = new Float64Array(5);
      const curve = { gc: new Float64Array(CURVE_POINTS), known: new Float64Array(CURVE_POINTS) };
      for (let start = 0; start < length; start += STEP_BP) {
        const codes = await genome.read(chrom, start, Math.min(length, start + STEP_BP));
        if (start === 0 && i === 0)
          notes.fact('begins', Array.from(codes.subarray(0, 60), (code) => 'ACGTN'[code]).join(''));
        for (const code of codes) own[code]!++;
        if (i === 0) addToCurve(curve, codes, start, length);
      }
      own.forEach((count, code) => {
        bases[code]! += count;
      });
      if (i === 0)
        notes.curves.push({
          name: `GC of ${chrom}`,
          values: Array.from(curve.gc, (count, at) => count / (curve.known[at]! || 1)),
        });
      if (i < SHOWN) rows.push([chrom, length.toLocaleString('en'), gc(own), percent(own[4]! / length)]);
    }
    notes.fact(
      quick ? 'bases of the first' : 'bases',
      `${gc(bases)} GC, ${bases[4]!.toLocaleString('en')} N`,
    );
    notes.tables.push({ header: ['sequence', 'bp', 'GC', 'N'], rows });
    if (rows.length < chromosomes.length) notes.fact('sequences not shown', chromosomes.length - rows.length);
  } finally {
    await genome.close();
  }
}

function addToCurve(
  { gc, known }: { gc: Float64Array; known: Float64Array },
  codes: Uint8Array,
  startBp: number,
  lengthBp: number,
): void {
  for (let bp = 0; bp < codes.length; bp++) {
    const at = Math.floor(((startBp + bp) / lengthBp) * CURVE_POINTS);
    if (codes[bp]! < 4) known[at]!++;
    if (codes[bp] === 1 || codes[bp] === 2) gc[at]!++;
  }
}

function gc([a = 0, c = 0, g = 0, t = 0]: Float64Array): string {
  return percent((c + g) / (a + c + g + t || 1));
}
