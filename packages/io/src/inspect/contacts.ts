import { openCooler, resolutions } from '../contacts/cooler.ts';
import type { InspectOptions } from './inspect.ts';
import { type Notes, percent } from './inspection.ts';

const SHOWN = 30;
const MOST_BINS = 2000; // of a window that is read: 32 MB a map

/** A cooler file: resolutions, chromosomes, and the contacts of each (of its first 2,000 bins). */
export async function inspectContacts(path: string, notes: Notes, { quick }: InspectOptions): Promise<void> {
  notes.what = 'cooler contact map';
  const sizes = await resolutions(path);
  const several = !sizes.includes('');
  if (several) notes.fact('resolutions', `${sizes.join(', ')} bp; the coarsest is looked at`);
  const map = await openCooler(path, several ? { binBp: Math.max(...sizes.map(Number)) } : {});
  const { binBp, chromosomes } = map;
  notes.what = `cooler contact map${several ? 's' : ''}: ${chromosomes.size} chromosomes in bins of ${binBp.toLocaleString('en')} bp`;
  const entries = [...chromosomes];
  const rows: string[][] = [];
  for (const [chrom, length] of quick ? entries.slice(0, 1) : entries) {
    const bins = Math.min(Math.floor(length / binBp), MOST_BINS);
    const { balanced, counts } = await map.read(chrom, 0, bins * binBp);
    const contacts = counts as Float64Array;
    const filtered = Array.from({ length: bins }, (_, bin) => balanced[bin * bins + bin]!).filter(
      Number.isNaN,
    ).length;
    const sum = contacts.reduce((total, count) => total + count, 0);
    const seen = contacts.reduce((total, count) => total + (count > 0 ? 1 : 0), 0);
    rows.push([
      chrom,
      length.toLocaleString('en'),
      String(bins),
      String(filtered),
      String(sum),
      percent(seen / contacts.length || 0),
    ]);
  }
  notes.tables.push({
    header: ['chromosome', 'bp', 'bins read', 'filtered', 'contacts, both triangles', 'seen at all'],
    rows: rows.slice(0, SHOWN),
  });
}
