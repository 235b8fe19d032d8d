import { type Inspection, inspect as look } from '@cohesin/io';
import { type Command, UsageError } from '../command-line.ts';
import { binned, sparkline } from '../demo/report.ts';
import { type Output, openOutput } from '../progress.ts';
import { usage } from '../task.ts';

export const inspect: Command = {
  name: 'inspect',
  argument: 'PATH',
  about: 'say what a file or a data set is, and whether all of it can be read',
  examples: [
    'cohesin inspect data/hg38',
    'cohesin inspect data/hg38/tfrecords/train-0.tfr',
    'cohesin inspect MNase.bw --quick',
    'cohesin inspect model_best.h5 --json',
  ],
  options: {
    quick: { about: 'looks at the first file or chromosome only' },
    json: { about: 'one JSON object instead of text' },
  },
  run: async (options) => {
    const output = openOutput(options.flag('json'));
    const found = await usage(() => look(options.argument, { quick: options.flag('quick') }));
    output.event({ ...found });
    show(found, output);
    if (found.problems.length > 0)
      throw new UsageError(
        `${found.path}: ${found.problems.length === 1 ? 'a problem' : `${found.problems.length} problems`}, see above`,
      );
  },
};

function show({ path, what, facts, tables, curves, warnings, problems }: Inspection, output: Output): void {
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
  if (curves.length > 0) output.say('');
  const names = Math.max(0, ...curves.map(({ name }) => name.length));
  for (const { name, values } of curves)
    output.say(
      `  ${name.padEnd(names)}  ${sparkline(binned(values, 64))}  up to ${Math.max(...values).toPrecision(3)}`,
    );
  for (const text of warnings) output.say(`warning: ${text}`);
  for (const text of problems) output.say(`problem: ${text}`);
}
