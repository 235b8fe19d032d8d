/** What was found out about a file, as one page. */
import { curveSvg, mapImage, page, plain, table } from '../page-parts.ts';
import type { Inspection } from './inspection.ts';

/** HTML that needs nothing else, with every table and picture. */
export function inspectionPage({
  path,
  what,
  facts,
  tables,
  caption,
  curves,
  maps,
  warnings,
  problems,
}: Inspection): string {
  return page(
    path,
    `<h1>${plain(path)}</h1>
<p>${plain(what)}</p>
${problems.map((text) => `<p class="problem">${plain(text)}</p>`).join('\n')}
${warnings.map((text) => `<p class="warn">${plain(text)}</p>`).join('\n')}
${table(
  [],
  facts.map((fact) => fact.map(plain)),
  'facts',
)}
${caption === '' ? '' : `<h2>${plain(caption)}</h2>`}
${curves.map(({ name, values }) => `<p>${plain(name)}, ${plain(range(values))}</p>${curveSvg(values)}`).join('\n')}
${maps.map(({ name, side, values }) => `<p>${plain(name)}</p>${mapImage(values, side)}`).join('\n')}
${tables
  .map(
    ({ header, rows }) =>
      `<h2></h2>${table(
        header.map(plain),
        rows.map((row) => row.map(plain)),
      )}`,
  )
  .join('\n')}`,
  );
}

function range(values: readonly number[]): string {
  const finite = values.filter(Number.isFinite);
  const [low, high] = [Math.min(0, ...finite), Math.max(...finite)];
  return `${low < 0 ? `${low.toPrecision(3)} ` : ''}to ${high.toPrecision(3)}`;
}
