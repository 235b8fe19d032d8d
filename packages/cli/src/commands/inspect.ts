import { writeFile } from 'node:fs/promises';
import { type HeatMap, type Inspection, inspectionPage, inspect as look } from '@cohesin/io';
import { type Command, UsageError } from '../command-line.ts';
import { binned, sparkline } from '../demo/report.ts';
import { type Output, openOutput } from '../progress.ts';
import { usage } from '../task.ts';

export const inspect: Command = {
  name: 'inspect',
  arguments: { about: 'PATH', least: 1, most: 1 },
  about: 'say what a file or a data set is, and whether all of it can be read',
  examples: [
    'cohesin inspect data/hg38',
    'cohesin inspect data/hg38/tfrecords/train-0.tfr',
    'cohesin inspect MNase.bw --quick',
    'cohesin inspect map.hic --page map.html',
    'cohesin inspect model_best.h5 --json',
  ],
  options: {
    quick: { about: 'looks at the first file or chromosome only' },
    page: { value: 'FILE', about: 'writes what was found to a page too, with larger pictures' },
    json: { about: 'one JSON object instead of text' },
  },
  run: async (options) => {
    const output = openOutput(options.flag('json'));
    const found = await usage(() => look(options.arguments[0]!, { quick: options.flag('quick') }));
    const { maps, ...rest } = found;
    output.event({
      ...rest,
      maps: maps.map(({ name, side, values }) => ({ name, side, values: [...values] })),
    });
    show(found, output);
    const page = options.text('page');
    if (page !== undefined) await writeFile(page, inspectionPage(found));
    if (found.problems.length > 0)
      throw new UsageError(
        `${found.path}: ${found.problems.length === 1 ? 'a problem' : `${found.problems.length} problems`}, see above`,
      );
  },
};

function show(found: Inspection, output: Output): void {
  const { path, what, facts, tables, caption, curves, maps, warnings, problems } = found;
  output.say(`${path}: ${what}`);
  const width = Math.max(0, ...facts.map(([name]) => name.length));
  for (const [name, value] of facts) output.say(`  ${name.padEnd(width)}  ${value}`);
  for (const { header, rows } of tables.filter((table) => table.rows.length > 0)) {
    const widths = header.map((cell, column) =>
      Math.max(cell.length, ...rows.map((row) => row[column]!.length)),
    );
    output.say('');
    for (const row of [header, ...rows])
      output.say(
        `  ${row
          .map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!)))
          .join('  ')
          .trimEnd()}`,
      );
  }
  if (curves.length + maps.length > 0) output.say('');
  if (caption !== '') output.say(`  ${caption}`);
  const names = Math.max(0, ...curves.map(({ name }) => name.length));
  for (const { name, values } of curves)
    output.say(
      `  ${name.padEnd(names)}  ${sparkline(binned(values, 64))}  up to ${Math.max(...values).toPrecision(3)}`,
    );
  for (const map of maps) output.say(drawMap(map));
  for (const text of warnings) output.say(`warning: ${text}`);
  for (const text of problems) output.say(`problem: ${text}`);
}

const MAP_ROWS = 32;
const SHADES = ' ░▒▓█';

/** Two characters a cell, darker for more, `·` where there is nothing. */
function drawMap({ name, side, values }: HeatMap): string {
  const cells = Math.min(MAP_ROWS, side);
  const edge = (cell: number): number => Math.floor((cell * side) / cells);
  const means = Array.from({ length: cells * cells }, (_, i) => {
    let [sum, count] = [0, 0];
    for (let row = edge(Math.floor(i / cells)); row < edge(Math.floor(i / cells) + 1); row++) {
      for (let column = edge(i % cells); column < edge((i % cells) + 1); column++) {
        const value = values[row * side + column]!;
        if (!Number.isFinite(value)) continue;
        sum += value;
        count++;
      }
    }
    return sum / count;
  });
  const ordered = means.filter(Number.isFinite).sort((a, b) => a - b);
  const rank = (value: number): number => ordered.filter((other) => other < value).length / ordered.length;
  const cell = (value: number): string =>
    Number.isFinite(value) ? SHADES[Math.floor(rank(value) * SHADES.length)]!.repeat(2) : ' ·';
  const rows = Array.from({ length: cells }, (_, row) =>
    means
      .slice(row * cells, (row + 1) * cells)
      .map(cell)
      .join(''),
  );
  return `  ${name}, ${side} × ${side}\n${rows.map((row) => `  ${row}`.trimEnd()).join('\n')}`;
}
