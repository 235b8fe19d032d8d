import { readBed, Union } from '../intervals.ts';
import { NumberList } from '../number-list.ts';
import { percent } from '../page-parts.ts';
import type { InspectOptions } from './inspect.ts';
import type { Notes } from './inspection.ts';

const SHOWN = 30;

/** A BED file: rows and bases by chromosome. */
export async function inspectBed(path: string, notes: Notes, _: InspectOptions): Promise<void> {
  const union = new Union();
  const sizes = new NumberList(Uint32Array);
  const counts = new Map<string, number>();
  let columns = 0;
  notes.what = 'text, read as BED';
  try {
    for await (const { chrom, startBp, endBp, rest } of readBed(path)) {
      union.add({ chrom, startBp, endBp });
      sizes.push(endBp - startBp);
      counts.set(chrom, (counts.get(chrom) ?? 0) + 1);
      columns = Math.max(columns, 3 + rest.length);
    }
  } catch (error) {
    notes.problem(error);
  }
  if (sizes.length > 0)
    notes.what = `BED file: ${sizes.length.toLocaleString('en')} intervals of ${columns} columns`;
  const covered = [...union.finish()].map(
    ([chrom, spans]) => [chrom, spans.reduce((sum, at, i) => sum + (i % 2 === 0 ? -at : at), 0)] as const,
  );
  const total = covered.reduce((sum, [, bp]) => sum + bp, 0);
  const lengths = sizes.values().sort();
  notes.fact('covered', `${total.toLocaleString('en')} bp`);
  if (lengths.length > 0)
    notes.fact('lengths', `${lengths[0]} to ${lengths.at(-1)} bp, median ${lengths[lengths.length >> 1]}`);
  const doubled = lengths.reduce((sum, length) => sum + length, 0) - total;
  if (doubled > 0)
    notes.fact('covered more than once', `${doubled.toLocaleString('en')} bp (${percent(doubled / total)})`);
  notes.tables.push({
    header: ['chromosome', 'intervals', 'bp covered'],
    rows: covered
      .slice(0, SHOWN)
      .map(([chrom, bp]) => [chrom, String(counts.get(chrom)), bp.toLocaleString('en')]),
  });
}
