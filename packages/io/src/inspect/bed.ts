import { readBed, unite } from '../intervals.ts';
import type { InspectOptions } from './inspect.ts';
import { type Notes, percent } from './inspection.ts';

const SHOWN = 30;

/** A BED file: rows and bases by chromosome. */
export async function inspectBed(path: string, notes: Notes, _: InspectOptions): Promise<void> {
  const rows = [];
  let columns = 0;
  notes.what = 'text, read as BED';
  try {
    for await (const { chrom, startBp, endBp, rest } of readBed(path)) {
      rows.push({ chrom, startBp, endBp });
      columns = Math.max(columns, 3 + rest.length);
    }
  } catch (error) {
    notes.problem(error);
  }
  if (rows.length > 0)
    notes.what = `BED file: ${rows.length.toLocaleString('en')} intervals of ${columns} columns`;
  const united = unite(rows);
  const counts = new Map<string, number>();
  for (const { chrom } of rows) counts.set(chrom, (counts.get(chrom) ?? 0) + 1);
  const covered = [...united].map(
    ([chrom, spans]) => [chrom, spans.reduce((sum, [start, end]) => sum + end - start, 0)] as const,
  );
  const total = covered.reduce((sum, [, bp]) => sum + bp, 0);
  const lengths = rows.map(({ startBp, endBp }) => endBp - startBp).toSorted((a, b) => a - b);
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
