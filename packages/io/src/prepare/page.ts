/** `provenance.html`: the account of a data set as one page that needs nothing else. */
import { page, percent, plain, table } from '../page-parts.ts';
import type { Provenance } from './provenance.ts';
import type { TrackSummary } from './track-summary.ts';

/** The page. */
export function provenancePage(provenance: Provenance): string {
  const { options, records, dropped, tracks, warnings, inputs, chromosomes, renamed, software, written } =
    provenance;
  const { sequenceLengthBp, cropBp, poolWidthBp, contacts } = options;
  const what = `${contacts ? 'contact map' : 'track'}${tracks.length === 1 ? '' : 's'}`;
  const total = Object.values(records).reduce((sum, count) => sum + count, 0);
  return page(
    `Data set: ${total} sequences`,
    `<h1>${total} sequences of ${sequenceLengthBp.toLocaleString('en')} bp, ${tracks.length} ${what} of ${provenance.targetLength.toLocaleString('en')} targets in bins of ${poolWidthBp.toLocaleString('en')} bp</h1>
<p>${cropBp.toLocaleString('en')} bp at each end have no targets. ${dropped.unmappable} sequences were dropped as unmappable, ${dropped.sampled} by sampling, ${dropped.filtered} as filtered from a contact map. Written ${plain(written)}.</p>
${warnings.map((text) => `<p class="warn">${plain(text)}</p>`).join('\n')}
<h2>Splits</h2>
${table(
  ['split', 'sequences', 'share'],
  Object.entries(records).map(([split, count]) => [split, String(count), percent(count / total)]),
)}
${bars(Object.entries(records))}
<h2>Tracks</h2>
<p>Histogram: bins that are 0, then by size in powers of two from 2<sup>−6</sup> to 2<sup>16</sup>, height by the square root of their number.</p>
${table(
  ['track', 'mean', 'min', 'max', 'zero', 'clipped', 'beyond f16', 'no value', 'histogram'],
  tracks.map(trackRow),
)}
<h2>Chromosomes</h2>
${table(
  ['chromosome', 'bp'],
  Object.entries(chromosomes).map(([name, length]) => [plain(name), length.toLocaleString('en')]),
)}
${Object.entries(renamed)
  .map(([file, names]) => `<p>${plain(file)}: ${plain(taken(names))}</p>`)
  .join('\n')}
<h2>Inputs</h2>
${table(
  ['file', 'bytes', 'SHA-256'],
  inputs.map(({ path, bytes, sha256 }) => [
    plain(path),
    bytes.toLocaleString('en'),
    `<code>${sha256}</code>`,
  ]),
)}
<h2>Options</h2>
<pre>${plain(JSON.stringify(options, undefined, 2))}</pre>
<h2>Software</h2>
${table(
  ['package', 'version'],
  Object.entries(software).map(([name, version]) => [plain(name), plain(version)]),
)}`,
  );
}

function taken(names: Readonly<Record<string, string>>): string {
  return Object.entries(names)
    .map(([chrom, name]) => `${name} is taken for ${chrom}`)
    .join(', ');
}

function trackRow(track: TrackSummary): string[] {
  const {
    identifier,
    mean,
    min,
    max,
    zeroFraction,
    clippedFraction,
    overflowed,
    missingFraction,
    histogram,
  } = track;
  const numbers = [mean, min, max].map((value) => value.toPrecision(4));
  const shares = [
    percent(zeroFraction),
    percent(clippedFraction),
    String(overflowed),
    percent(missingFraction),
  ];
  return [plain(identifier), ...numbers, ...shares, columns(histogram)];
}

function columns(counts: readonly number[]): string {
  const most = Math.max(...counts, 1);
  const rects = counts.map((count, i) => {
    const height = 24 * Math.sqrt(count / most);
    return `<rect x="${i * 5}" y="${(24 - height).toFixed(1)}" width="4" height="${height.toFixed(1)}"/>`;
  });
  return `<svg width="${counts.length * 5}" height="24" role="img">${rects.join('')}</svg>`;
}

function bars(entries: readonly (readonly [string, number])[]): string {
  const most = Math.max(...entries.map(([, count]) => count), 1);
  const rows = entries.map(
    ([name, count], i) =>
      `<rect x="60" y="${i * 18}" width="${((400 * count) / most).toFixed(1)}" height="14"/><text x="0" y="${i * 18 + 11}" font-size="12">${plain(name)}</text>`,
  );
  return `<svg width="470" height="${entries.length * 18}" role="img">${rows.join('')}</svg>`;
}
