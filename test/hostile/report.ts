/** What came of the damaged files, as a page of `benchmarks/results`. */
import { environment, publish, table } from '../../benchmarks/src/report.ts';
import { FAULTS, OUTCOMES, type Trial } from './trial.ts';

export function reportTrials(trials: readonly Trial[]): void {
  const count = (by: 'format' | 'kind', name: string, outcome: string): string =>
    String(trials.filter((trial) => trial[by] === name && trial.outcome === outcome).length);
  const rows = (by: 'format' | 'kind'): string[][] =>
    [...new Set(trials.map((trial) => trial[by]))].map((name) => [
      name,
      String(trials.filter((trial) => trial[by] === name).length),
      ...[...OUTCOMES, ...FAULTS].map((outcome) => count(by, name, outcome)),
    ]);
  const text = [
    `${trials.length} seeded mutations of small sound files, read to the end in a child process with a deadline of 20 s, which notes any
buffer above 64 MiB and any growth of the process beyond that. "Same": the values of the sound file (the damage lay in unused bytes).
"Other": other values, possible only where the format has no checksum, and fewer records in an uncompressed TFRecord cut between two.`,
    table(['format', 'mutations', ...OUTCOMES, ...FAULTS], rows('format')),
    table(['kind', 'mutations', ...OUTCOMES, ...FAULTS], rows('kind')),
    'Run again with `HOSTILE=345 npx vitest run --config test/vitest.config.ts test/hostile`; with `HOSTILE_LOG=FILE` a run that was\nstopped goes on, and `HOSTILE_ONLY=PATTERN` takes some formats.',
  ].join('\n\n');
  publish({
    name: 'hostile',
    title: 'Damaged files',
    environment: environment({ device: 'none', description: 'none' }),
    text,
    data: { trials: trials.length, byFormat: rows('format'), byKind: rows('kind') },
  });
}
