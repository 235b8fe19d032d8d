import { type ContactMap, contactLayout, openContacts } from '../contacts/contact-map.ts';
import { percent } from '../page-parts.ts';
import type { InspectOptions } from './inspect.ts';
import { brief, type Notes } from './inspection.ts';

const SHOWN = 30;
/** The finest resolution is looked at that has no more bins on any chromosome: 3 MB a map. */
const GOOD_BINS = 600;
const MOST_BINS = 2000; // of a window that is read: 32 MB a map

/** A cooler or `.hic` file: resolutions, weights, chromosomes, the contacts of each, and a picture of one. */
export async function inspectContacts(path: string, notes: Notes, { quick }: InspectOptions): Promise<void> {
  notes.what = 'contact map';
  const { format, assembly, resolutions, normalizations } = await contactLayout(path);
  notes.what = `contact map (${format})`;
  if (assembly) notes.fact('assembly', assembly);
  notes.fact('resolutions', `${resolutions.map((bp) => bp.toLocaleString('en')).join(', ')} bp`);
  notes.fact('balanced by', normalizations.join(', ') || 'nothing');
  const normalization = ['weight', 'KR', ...normalizations].find((name) => normalizations.includes(name));
  if (normalization === undefined)
    notes.warnings.push(
      'is not balanced, so prepare refuses it: run `cooler balance`, or `juicer_tools addNorm`, on it',
    );
  const options = { normalization: normalization ?? 'NONE' };
  const sizes = resolutions.toSorted((a, b) => a - b);
  const coarsest = await openContacts(path, { ...options, binBp: sizes.at(-1)! });
  const longest = Math.max(...coarsest.chromosomes.values());
  const binBp = sizes.find((bp) => longest / bp <= GOOD_BINS) ?? sizes.at(-1)!;
  await coarsest.close();
  const map = await openContacts(path, { ...options, binBp });
  try {
    notes.what = `contact map (${format}): ${map.chromosomes.size} chromosomes, looked at in bins of ${binBp.toLocaleString('en')} bp`;
    if (map.withheld) notes.warnings.push(map.withheld);
    await readChromosomes(map, options.normalization, quick ? 1 : Number.POSITIVE_INFINITY, notes);
  } finally {
    await map.close();
  }
}

async function readChromosomes(
  map: ContactMap,
  normalization: string,
  count: number,
  notes: Notes,
): Promise<void> {
  const { chromosomes, binBp } = map;
  const rows: string[][] = [];
  let most = 0;
  for (const [chrom, length] of [...chromosomes].slice(0, count)) {
    const bins = Math.min(Math.floor(length / binBp), MOST_BINS);
    const { balanced, counts } = await map.read(chrom, 0, bins * binBp);
    const contacts = counts as Float64Array;
    const filtered = Array.from({ length: bins }, (_, bin) => balanced[bin * bins + bin]!).filter(
      Number.isNaN,
    ).length;
    const sum = contacts.reduce((total, value) => total + value, 0);
    const seen = contacts.reduce((total, value) => total + (value > 0 ? 1 : 0), 0);
    const share = percent(seen / contacts.length || 0);
    rows.push([chrom, length.toLocaleString('en'), String(bins), String(filtered), brief(sum), share]);
    if (sum <= most) continue;
    most = sum;
    notes.maps[0] = {
      name: `${chrom}:0-${(bins * binBp).toLocaleString('en')}, log10 of ${normalization === 'NONE' ? 'counts' : `contacts balanced by ${normalization}`}`,
      side: bins,
      values: balanced.map((value) => (value > 0 ? Math.log10(value) : Number.NaN)),
    };
  }
  notes.tables.push({
    header: ['chromosome', 'bp', 'bins read', 'filtered', 'contacts, both triangles', 'seen at all'],
    rows: rows.slice(0, SHOWN),
  });
}
