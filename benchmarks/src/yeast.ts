/** A small Basenji on real yeast tracks against the k-mer baseline, on a chromosome that neither has seen. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { cohesin, commandEnvironment, type Event, eventsOf, minutesOf, RUNS } from './command.ts';
import { publish, ROOT, table } from './report.ts';

const YEAST = join(ROOT, '../shared/data/yeast');
const OUT = join(RUNS, 'yeast');
const DATA = join(OUT, 'data');
const MODEL = 'benchmarks/yeast.json';
const SEEDS = [0, 1];

const PREPARE =
  '--chromosomes chrII,chrIV,chrXVI --length 4096 --crop 512 --bin 64 --stride 0.75 --stride-test 0.75 --snap 64 --valid chrII --test chrXVI';

/** What the baseline is tuned over: bases, gaps, and context in bp. */
const GRID = [
  ...[50, 100, 200, 400, 600].map((context) => [5, 0, context] as const),
  ...[50, 400].map((context) => [6, 0, context] as const),
  [5, 1, 50] as const,
  [4, 1, 400] as const,
];
type Setting = (typeof GRID)[number];

type Split = 'valid' | 'test';

/** Pearson's r of one track. */
interface Value {
  readonly identifier: string;
  readonly value: number;
}

/** The setting that is best on the validation chromosome for one track. */
interface Tuned extends Value {
  readonly setting: Setting;
  readonly test: number;
}

interface Network {
  readonly seed: number;
  readonly valid: readonly Value[];
  readonly test: readonly Value[];
  readonly epochs: number;
  readonly minutes: number;
}

export function yeast(): void {
  if (!existsSync(YEAST)) {
    console.log(`yeast: left out, for ${YEAST} is not there`);
    return;
  }
  const where = commandEnvironment(join(OUT, 'devices.log'));
  const genome = join(YEAST, 'sacCer3.2bit');
  const tracks = ['MNase', 'Scc1'].map((name) => join(YEAST, `${name}.bw`)).join();
  const inputs = ['--genome', genome, '--tracks', tracks, ...PREPARE.split(' ')];
  const [plan] = cohesin(['prepare', ...inputs, '--out', DATA], join(OUT, 'prepare.log'));
  const tuned = tunedBaseline();
  const networks = SEEDS.map(trained);
  publish({
    name: 'yeast',
    title: 'A small Basenji against k-mers, on yeast',
    environment: where,
    text: report(plan!, tuned, networks),
    data: { tuned, networks },
  });
}

function tunedBaseline(): readonly Tuned[] {
  const found = GRID.map((setting) => ({ setting, values: baselineOf(setting, 'valid') }));
  return found[0]!.values.map(({ identifier }, track) => {
    const best = found.reduce((a, b) => (b.values[track]!.value > a.values[track]!.value ? b : a));
    const test = baselineOf(best.setting, 'test')[track]!.value;
    return { identifier, setting: best.setting, value: best.values[track]!.value, test };
  });
}

function baselineOf([k, gaps, context]: Setting, split: Split): readonly Value[] {
  const features = ['--k', `${k}`, '--gaps', `${gaps}`, '--context', `${context}`, '--rows', '50000'];
  const log = join(OUT, `baseline-${k}-${gaps}-${context}-${split}.log`);
  const [event] = cohesin(['baseline', '--data', DATA, ...features, '--split', split], log);
  return event!.tracks as readonly Value[];
}

function trained(seed: number): Network {
  const out = join(OUT, `seed-${seed}`);
  const model = join(ROOT, MODEL);
  const events = cohesin(
    ['train', '--model', model, '--data', DATA, '--out', out, '--seed', `${seed}`],
    `${out}.log`,
  );
  const evaluated = (split: Split): readonly Value[] => {
    const args = ['evaluate', '--checkpoint', join(out, 'best'), '--data', DATA, '--split', split];
    return cohesin(args, `${out}-${split}.log`)[0]!.tracks as readonly Value[];
  };
  const epochs = eventsOf(events, 'validation').length;
  return { seed, valid: evaluated('valid'), test: evaluated('test'), epochs, minutes: minutesOf(events) };
}

function report(plan: Event, tuned: readonly Tuned[], networks: readonly Network[]): string {
  const records = plan.records as Readonly<Record<string, number>>;
  const row = (name: string, values: readonly number[]): string[] => [
    name,
    ...[...values, mean(values)].map((value) => value.toFixed(4)),
  ];
  const pick = (values: readonly Value[]): number[] => values.map(({ value }) => value);
  const head = ['', ...tuned.map(({ identifier }) => identifier), 'mean'];
  const rows = (split: Split): string[][] => [
    row(
      'k-mer ridge, tuned for each track',
      tuned.map(({ value, test }) => (split === 'test' ? test : value)),
    ),
    ...networks.map((network) => row(`network, seed ${network.seed}`, pick(network[split]))),
  ];
  const settings = tuned.map(
    ({ identifier, setting: [k, gaps, context] }) =>
      `${identifier}: ${k} bases, up to ${gaps} gaps, ${context} bp on each side of a bin`,
  );
  return [
    `\`npm run bench -- --only yeast\`, with \`../shared/data/yeast\` beside the repository: MNase-seq (nucleosomes) and Scc1 ChIP-seq (cohesin) of yeast, ${records.train} sequences of chrIV to train on, ${records.valid} of chrII to choose by, ${records.test} of chrXVI to report. The network is [yeast.json](../yeast.json). The baseline is the best of ${GRID.length} settings of words and context and 6 penalties, chosen for each track on chrII (${settings.join('; ')}); all training bins are fitted. Pearson r over all positions.`,
    'chrXVI, held out:',
    table(head, rows('test')),
    'chrII, where settings and epochs were chosen:',
    table(head, rows('valid')),
    `The networks trained for ${networks.map(({ epochs }) => epochs).join(' and ')} epochs (${networks.map(({ minutes }) => minutes.toFixed(1)).join(' and ')} CPU min) and average their prediction over both strands; k-mers are counted on both.`,
    `Data: \`cohesin prepare --genome sacCer3.2bit --tracks MNase.bw,Scc1.bw ${PREPARE} --out runs/yeast/data\`.`,
  ].join('\n\n');
}

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;
