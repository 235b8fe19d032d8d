/** The same comparison on real data: a trunk of yeast's MNase and Scc1 tracks below yeast's contact map. */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cohesin, commandEnvironment, type Event, eventsOf, minutesOf, RUNS } from './command.ts';
import { publish, ROOT, table } from './report.ts';

const YEAST = join(ROOT, '../shared/data/yeast');
const OUT = join(RUNS, 'transfer-yeast');
const SEEDS = [0]; // about 5 CPU min each
const TRUNK_STEPS = 240;
const STEPS = 81; // three passes over 107 windows in batches of four
const LONGER_STEPS = 129; // with as many bases more as the trunk's steps have

/** To bins of 400 bp, 24 channels each. */
const TRUNK = [
  { name: 'conv_block', filters: 16, kernel_size: 11, pool_size: 8 },
  { name: 'conv_block', filters: 24, kernel_size: 5, pool_size: 5 },
  { name: 'conv_block', filters: 24, kernel_size: 5, pool_size: 10 },
];
const SHARED = {
  augment_rc: true,
  augment_shift: 20,
  activation: 'gelu',
  norm_type: 'batch',
  bn_momentum: 0.9,
  trunk: TRUNK,
};
const OPTIMIZER = { optimizer: 'adam', learning_rate: 0.003, clip_norm: 2 };
const TRACKS = {
  train: { ...OPTIMIZER, batch_size: 8, loss: 'poisson' },
  model: {
    ...SHARED,
    seq_length: 16_000,
    head_yeast: [
      { name: 'Cropping1D', cropping: 2 },
      { name: 'final', units: 2, activation: 'softplus' },
    ],
  },
};
const MAPS = {
  train: { ...OPTIMIZER, batch_size: 4, loss: 'mse' },
  model: {
    ...SHARED,
    seq_length: 160_000,
    head_contacts: [
      { name: 'conv_block', filters: 24, kernel_size: 5, pool_size: 5 },
      { name: 'conv_block', filters: 24, kernel_size: 5, pool_size: 5 },
      { name: 'one_to_two', operation: 'mean' },
      { name: 'concat_dist_2d' },
      { name: 'conv_block_2d', filters: 16, kernel_size: 3 },
      { name: 'symmetrize_2d' },
      { name: 'dilated_residual_2d', filters: 8, kernel_size: 3, rate_mult: 2, repeat: 2 },
      { name: 'cropping_2d', cropping: 2 },
      { name: 'upper_tri', diagonal_offset: 2 },
      { name: 'final', units: 1, activation: 'linear' },
    ],
  },
};

const file = (name: string): string => join(OUT, name);
const genome = ['--genome', join(YEAST, 'sacCer3.2bit')];

/** A command and where its events are kept. */
export interface Run {
  readonly args: readonly string[];
  readonly log: string;
}

const tracksOf = (names: readonly string[]): string => names.map((name) => join(YEAST, `${name}.bw`)).join();

const PREPARE: readonly Run[] = [
  {
    args: [
      ...[
        'prepare',
        ...genome,
        '--tracks',
        tracksOf(['MNase', 'Scc1']),
        '--chromosomes',
        'chrII,chrIV,chrXVI',
      ],
      ...'--bin 400 --length 16000 --crop 800 --stride 8000 --valid chrII --test chrXVI --out'.split(' '),
      file('tracks'),
    ],
    log: file('prepare-tracks.log'),
  },
  {
    args: [
      ...['prepare', ...genome, '--contacts', join(YEAST, 'yeast.10kb.cool'), '--length-tolerance', '11'],
      ...'--bin 10000 --length 160000 --crop 20000 --stride 80000 --stride-test 40000 --valid chrXIII --test chrXVI --out'.split(
        ' ',
      ),
      file('maps'),
    ],
    log: file('prepare-maps.log'),
  },
];

const train = (
  task: 'tracks' | 'maps',
  name: string,
  seed: number,
  steps: number,
  more: string[] = [],
): Run => ({
  args: [
    ...['train', '--model', file(`${task}.json`), '--data', file(task), '--out', file(`${name}-${seed}`)],
    ...['--seed', `${seed}`, '--steps', `${steps}`, '--patience', '1000', ...more],
  ],
  log: file(`${name}-${seed}-${steps}.log`),
});

const evaluate = (task: 'tracks' | 'maps', name: string, seed: number, steps: number): Run => ({
  args: ['evaluate', '--checkpoint', file(`${name}-${seed}/best`), '--data', file(task), '--split', 'test'],
  log: file(`${name}-${seed}-${steps}-test.log`),
});

/** Training of a seed and then its evaluation, arm by arm; the longer runs go on where the others from scratch end. */
function runsOf(
  seed: number,
): Readonly<Record<'trunk' | 'scratch' | 'longer' | 'moved', readonly [Run, Run]>> {
  const from = ['--from', file(`trunk-${seed}/best`), '--from-layers', 'trunk.*', '--rate', 'trunk.*=0.1'];
  return {
    trunk: [train('tracks', 'trunk', seed, TRUNK_STEPS), evaluate('tracks', 'trunk', seed, TRUNK_STEPS)],
    scratch: [train('maps', 'scratch', seed, STEPS), evaluate('maps', 'scratch', seed, STEPS)],
    longer: [
      train('maps', 'scratch', seed, LONGER_STEPS, ['--resume', file(`scratch-${seed}`)]),
      evaluate('maps', 'scratch', seed, LONGER_STEPS),
    ],
    moved: [train('maps', 'moved', seed, STEPS, from), evaluate('maps', 'moved', seed, STEPS)],
  };
}

/** All commands in the order in which they can run. */
export function plan(): readonly Run[] {
  mkdirSync(OUT, { recursive: true });
  writeFileSync(file('tracks.json'), JSON.stringify(TRACKS));
  writeFileSync(file('maps.json'), JSON.stringify(MAPS));
  return [...PREPARE, ...SEEDS.flatMap((seed) => Object.values(runsOf(seed)).flat())];
}

export function transferYeast(): void {
  if (!existsSync(YEAST)) {
    console.log(`transfer-yeast: left out, for ${YEAST} is not there`);
    return;
  }
  const events = new Map<Run, readonly Event[]>();
  for (const run of plan()) events.set(run, cohesin(run.args, run.log));
  publish({
    name: 'transfer-yeast',
    title: 'A trunk of yeast tracks below a yeast contact map',
    environment: commandEnvironment(join(OUT, 'devices.log')),
    text: report(),
    data: SEEDS.map(outcomes),
  });
}

interface Outcome {
  /** Mean Pearson r on chrXVI, of the state with the best validation. */
  readonly test: number;
  readonly valid: number;
  readonly minutes: number;
}

type Arm = keyof ReturnType<typeof runsOf>;

/** What the logs of a seed say. */
function outcomes(seed: number): Readonly<Record<Arm, Outcome>> {
  const of = ([trained, evaluated]: readonly [Run, Run]): Outcome => {
    const events = cohesin(trained.args, trained.log);
    const epochs = eventsOf(events, 'validation').filter(({ best }) => best !== undefined); // others are not kept
    const best = Math.max(...epochs.map(({ value }) => value as number));
    const [evaluation] = cohesin(evaluated.args, evaluated.log);
    return { test: evaluation!.mean as number, valid: best, minutes: minutesOf(events) };
  };
  const runs = runsOf(seed);
  return { trunk: of(runs.trunk), scratch: of(runs.scratch), longer: of(runs.longer), moved: of(runs.moved) };
}

function report(): string {
  const found = SEEDS.map(outcomes);
  const row = (name: string, steps: number, arm: Arm): string[] => [
    name,
    `${steps}`,
    ...found.map((seed) => seed[arm].test.toFixed(3)),
    mean(found.map((seed) => seed[arm].test)).toFixed(3),
    arm === 'moved' || arm === 'longer'
      ? found.map((seed) => signed(seed[arm].test - seed.scratch.test)).join(', ')
      : '',
    mean(found.map((seed) => seed[arm].valid)).toFixed(3),
    mean(found.map((seed) => seed[arm].minutes)).toFixed(1),
  ];
  const head = [
    '',
    'steps',
    ...SEEDS.map((seed) => `seed ${seed}`),
    'mean',
    'gain, seed by seed',
    'validation',
    'CPU min',
  ];
  return [
    '`npm run bench -- --only transfer-yeast`, with `../shared/data/yeast` beside the repository. Maps: `yeast.10kb.cool`, log of observed over expected in windows of 160 kb, 55 pairs of 10 kb bins each, 107 windows to train on, chrXIII to choose by, chrXVI to report. Trunk: MNase and Scc1 in bins of 400 bp, trained on chrIV, chosen on chrII, so that it has seen neither chromosome of the maps’ validation and test. Each seed is that of weights, order and augmentation of all its arms. Pearson r over all positions (pairs of bins) of chrXVI.',
    table(head, [
      row('trunk, on tracks', TRUNK_STEPS, 'trunk'),
      row('maps from scratch', STEPS, 'scratch'),
      row('the same runs, resumed', LONGER_STEPS, 'longer'),
      row('maps with the trunk of tracks, at 0.1 of the rate', STEPS, 'moved'),
    ]),
    verdict(found),
  ].join('\n\n');
}

function verdict(found: readonly Readonly<Record<Arm, Outcome>>[]): string {
  const ahead = found.filter(({ moved, longer }) => moved.test > longer.test).length;
  const onMaps = found.flatMap(({ scratch, longer, moved }) => [scratch.test, longer.test, moved.test]);
  const [least, most] = [Math.min(...onMaps), Math.max(...onMaps)];
  return `In ${ahead} of ${found.length} seeds the trunk ends above the run from scratch that took as much work. Every run on maps is between r ${least.toFixed(3)} and ${most.toFixed(3)}: the trunk predicts tracks of a chromosome it has not seen, but at this budget no arm predicts its map. So this is no win for the trunk, and with ${found.length === 1 ? 'one seed' : `${found.length} seeds`} and so little training it says nothing of what tracks tell of contacts.`;
}

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

const signed = (value: number): string => `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(3)}`;
