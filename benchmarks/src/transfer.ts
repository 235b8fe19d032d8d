/** What a trunk trained on tracks is worth below a contact map, by the command line that the README shows. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cohesin, commandEnvironment, type Event, eventsOf, minutesOf, RUNS } from './command.ts';
import { type CurveGroup, curvesSvg } from './curves.ts';
import { publish, ROOT, table } from './report.ts';

const OUT = join(RUNS, 'transfer');
const SEEDS = [0, 1, 2];
const TRUNK_STEPS = 160;
const STEPS = 180;
const MAPS = 48;

const ARMS = {
  scratch: { name: 'from scratch', colour: '#777777' },
  moved: { name: 'trunk of tracks, at 0.1 of the rate', colour: '#0a6cbd' },
  frozen: { name: 'trunk of tracks, frozen', colour: '#d95f02' },
} as const;
type Arm = keyof typeof ARMS;

const FROM: Readonly<Record<Arm, (trunk: string) => readonly string[]>> = {
  scratch: () => [],
  moved: (trunk) => ['--from', trunk, '--from-layers', 'trunk.*', '--rate', 'trunk.*=0.1'],
  frozen: (trunk) => ['--from', trunk, '--from-layers', 'trunk.*', '--freeze', 'trunk.*'],
};

/** One run of an arm. */
interface Outcome {
  /** [step, validation r] of each epoch. */
  readonly curve: readonly (readonly [number, number])[];
  /** On test maps, of the state with the best validation. */
  readonly test: number;
  readonly minutes: number;
}

type Outcomes = Readonly<Record<Arm | 'longer', readonly Outcome[]>>;

export function transfer(): void {
  const where = commandEnvironment(join(OUT, 'devices.log'));
  cohesin(['simulate', '--out', join(OUT, 'simulated')], join(OUT, 'simulate.log'));
  const trunks = SEEDS.map(trunkOf);
  const scratch = SEEDS.map((seed) => outcome(`scratch-${seed}`, seed, STEPS, []));
  // The same runs go on for as many steps as trunk and head took together.
  const longer = SEEDS.map((seed) =>
    outcome(`scratch-${seed}`, seed, STEPS + TRUNK_STEPS, ['--resume', join(OUT, `scratch-${seed}`)]),
  );
  const arm = (name: Arm): Outcome[] =>
    SEEDS.map((seed, i) => outcome(`${name}-${seed}`, seed, STEPS, FROM[name](trunks[i]!.best)));
  const outcomes = { scratch, longer, moved: arm('moved'), frozen: arm('frozen') };
  writeFileSync(join(ROOT, 'benchmarks/results/transfer.svg'), picture(outcomes));
  publish({
    name: 'transfer',
    title: 'A trunk of tracks below a contact map',
    environment: where,
    text: report(
      outcomes,
      trunks.map(({ minutes }) => minutes),
    ),
    data: { seeds: SEEDS, ...outcomes },
  });
}

function trunkOf(seed: number): { readonly best: string; readonly minutes: number } {
  const out = join(OUT, `trunk-${seed}`);
  return { best: join(out, 'best'), minutes: minutesOf(train('tracks', out, seed, TRUNK_STEPS, [])) };
}

function train(
  task: 'tracks' | 'contacts',
  out: string,
  seed: number,
  steps: number,
  more: readonly string[],
): readonly Event[] {
  const model = join(OUT, 'simulated', task);
  const given = ['--seed', `${seed}`, '--steps', `${steps}`, '--patience', '1000', ...more];
  return cohesin(
    ['train', '--model', `${model}.json`, '--data', model, '--out', out, ...given],
    `${out}-${steps}.log`,
  );
}

function outcome(name: string, seed: number, steps: number, more: readonly string[]): Outcome {
  const out = join(OUT, name);
  const events = train('contacts', out, seed, steps, more);
  const data = join(OUT, 'simulated', 'contacts');
  const [evaluation] = cohesin(
    ['evaluate', '--checkpoint', join(out, 'best'), '--data', data],
    `${out}-${steps}-test.log`,
  );
  return {
    curve: eventsOf(events, 'validation').map(({ step, value }) => [step as number, value as number]),
    test: evaluation!.mean as number,
    minutes: minutesOf(events),
  };
}

function picture(outcomes: Outcomes): string {
  const lines = (Object.keys(ARMS) as Arm[]).map(
    (arm): CurveGroup => ({ ...ARMS[arm], runs: outcomes[arm].map(({ curve }) => curve) }),
  );
  return curvesSvg({
    title: `Contact maps from ${MAPS} simulated sequences: validation r, ${SEEDS.length} seeds and their mean`,
    x: 'steps on contact maps',
    y: 'Pearson r over pairs of bins',
    lines,
  });
}

function report(outcomes: Outcomes, trunkMinutes: readonly number[]): string {
  const { scratch, longer, moved, frozen } = outcomes;
  const row = (name: string, steps: string, runs: readonly Outcome[]): string[] => {
    const gains = runs.map(({ test }, i) => test - scratch[i]!.test);
    return [
      name,
      steps,
      ...runs.map(({ test }) => test.toFixed(4)),
      mean(runs.map(({ test }) => test)).toFixed(4),
      runs === scratch ? '' : gains.map((gain) => signed(gain)).join(', '),
      mean(runs.map(({ minutes }) => minutes)).toFixed(1),
    ];
  };
  const head = [
    '',
    'steps on maps',
    ...SEEDS.map((seed) => `seed ${seed}`),
    'mean',
    'gain, seed by seed',
    'CPU min',
  ];
  const rows = [
    row(ARMS.scratch.name, `${STEPS}`, scratch),
    row('the same runs, resumed', `${STEPS + TRUNK_STEPS}`, longer),
    row(ARMS.moved.name, `${STEPS}`, moved),
    row(ARMS.frozen.name, `${STEPS}`, frozen),
  ];
  return [
    `\`npm run bench -- --only transfer\`. The genomes are simulated (\`cohesin simulate\`): a CTCF site makes peaks in a track, and in another genome lowers the contacts across it. So what a trunk learns from 160 sequences with tracks is by construction what the maps of ${MAPS} sequences need; this shows that the parts for moving a trunk work, not how much real tracks tell of real contacts ([tried on yeast](transfer-yeast.md)). Pearson r over all pairs of bins of 32 test maps, of the state with the best validation; every row has the same seeds for heads, order and augmentation, and each seed its own trunk.`,
    table(head, rows),
    `Each trunk took ${TRUNK_STEPS} steps on tracks (${mean(trunkMinutes).toFixed(1)} CPU min). The resumed runs spend as many steps from scratch as trunk and head together.`,
    '![validation r by step](transfer.svg)',
  ].join('\n\n');
}

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

const signed = (value: number): string => `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(3)}`;
