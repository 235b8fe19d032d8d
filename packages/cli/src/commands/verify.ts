import { type Command, type Options, UsageError } from '../command-line.ts';
import { type ComparedRuns, compareRuns, type TensorDifference } from '../compare-runs.ts';
import { differingText } from '../compare-values.ts';
import { describeMesh } from '../device-options.ts';
import { logicalDifferences, type NamedPlan, readPlanFile } from '../plan-file.ts';
import { type Output, openOutput } from '../progress.ts';
import { type FirstDifference, type Replayed, replay } from '../replay.ts';
import { prepareRun } from '../run.ts';
import { RUN_OPTIONS, type RunOptions, readRunOptions } from '../run-options.ts';
import { planFileOf } from '../run-plan-file.ts';
import { usage } from '../task.ts';
import { openTraining, type Training } from '../training.ts';

const NOT_OF_REPLAYS = [
  'out',
  'plan',
  'epochs',
  'checkpoint-every',
  'patience',
  'steps',
  'trace',
  'trace-steps',
];
const DEFAULT_STEPS = 2;
const SHOWN = 10;
/** As of `diff`. */
const EXIT_DIFFERENT = 1;

export const verify: Command = {
  name: 'verify',
  about: 'find the first tensor, step and leaf in which two runs or two placements differ',
  arguments: { about: '[A [B]]', least: 0, most: 2 },
  examples: [
    'cohesin verify runs/first runs/again',
    'cohesin verify one.json four.json --model params.json --data data/hg38',
    'cohesin verify four.json --model params.json --data data/hg38 --steps 3',
    'cohesin verify --model params.json --data data/hg38 --stages trunk.0,trunk.3 --stage-devices 2,1',
  ],
  options: {
    ...Object.fromEntries(Object.entries(RUN_OPTIONS).filter(([name]) => !NOT_OF_REPLAYS.includes(name))),
    steps: {
      value: 'N',
      about: `training steps to run under two plans (default ${DEFAULT_STEPS}): those of A and B, of A and one device, or of the options and one device; without plans, A and B are runs whose checkpoints are compared`,
    },
  },
  run: async (options) => {
    const output = openOutput(options.flag('json'));
    const [a, b] = options.arguments;
    const runs = options.arguments.filter((path) => !path.endsWith('.json'));
    if (runs.length === 1)
      throw new UsageError(
        `${runs[0]} is a run; give another to compare it with, or plans alone, which are files in .json`,
      );
    const same =
      runs.length === 2
        ? reportRuns(await usage(() => compareRuns(a!, b!)), output)
        : reportReplay(await replayed(options, output), output);
    if (!same) process.exitCode = EXIT_DIFFERENT;
  },
};

interface ReplayedPair extends Replayed {
  readonly parts: number;
  readonly titles: readonly [string, string];
}

/** Both placements are open at once, each with its own memory on its devices. */
async function replayed(options: Options, output: Output): Promise<ReplayedPair> {
  const steps = options.count('steps') ?? DEFAULT_STEPS;
  const plans = await Promise.all(options.arguments.map(readPlanFile));
  const [first, second] = placements(options, plans);
  const { study, plan, resumed, weights } = await prepareRun(first);
  const { plan: other } = await prepareRun(second);
  if (plan.batch !== other.batch)
    throw new UsageError(
      `${titleOf(plans, 0)} has ${plan.batch} sequences a step and ${titleOf(plans, 1)} ${other.batch}; the same steps need as many`,
    );
  const open: Training[] = [];
  try {
    for (const one of [plan, other]) open.push(await openTraining(study, one, { resumed, weights }));
    const pair = open as [Training, Training];
    for (const [i, { mesh }] of open.entries()) output.say(`${titleOf(plans, i)}: ${describeMesh(mesh)}`);
    const [x, y] = pair.map((training) => planFileOf(training).logical);
    const logical = logicalDifferences(x!, y!);
    if (logical.length > 0)
      output.say(`the logical plans differ, so other bits are expected: ${logical.join('; ')}`);
    return {
      ...(await replay(pair, steps, output)),
      parts: plan.parts,
      titles: [titleOf(plans, 0), titleOf(plans, 1)],
    };
  } finally {
    for (const training of open) await training.close();
  }
}

/** Of two plans, or of one plan or the options and one device. */
function placements(options: Options, plans: readonly NamedPlan[]): [RunOptions, RunOptions] {
  const [plan, other] = plans;
  const first = readRunOptions(options, { plan, out: '' });
  if (other !== undefined) return [first, readRunOptions(options, { plan: other, out: '' })];
  return [first, { ...first, devices: 1, pipeline: undefined, replicas: undefined, shardOptimizer: false }];
}

const titleOf = (plans: readonly NamedPlan[], i: number): string =>
  plans[i]?.path ?? (i === 0 ? 'as the options say' : 'one device');

/** @returns whether they are the same */
function reportReplay(result: ReplayedPair, output: Output): boolean {
  const { first, state, tensors, copies, steps, alone, titles } = result;
  const same = first === undefined && state.length === 0;
  const { key: _key, ...shown } = first ?? { key: '' };
  output.event({
    event: 'verify',
    same,
    tensors,
    copies,
    steps,
    alone,
    ...(first && { first: shown }),
    state,
  });
  if (alone > 0) output.say(`${alone} tensors are stored under one placement alone, and were not compared`);
  if (first !== undefined) for (const line of firstText(first, result)) output.say(line);
  else if (state.length > 0) for (const line of stateText(state, titles)) output.say(line);
  else if (!output.json)
    console.log(
      `same bits: ${tensors} tensors in ${steps} ${steps === 1 ? 'step' : 'steps'}, ${copies} with those of all leaves; and all state after them`,
    );
  return same;
}

function firstText(first: FirstDifference, { parts, titles }: ReplayedPair): string[] {
  const { step, label, round, leaf, sides, others, values } = first;
  const place =
    leaf === undefined
      ? parts > 1
        ? `sequence ${round} of the batch, in what all its parts share`
        : 'in what all leaves share'
      : parts > 1
        ? `sequence ${round} of the batch, part ${leaf}`
        : `leaf ${leaf}`;
  const [a, b] = sides.map(({ placement, rank }) => `${titles[placement]}, rank ${rank}`);
  return [
    `step ${step}: the first tensor that differs is ${label}, ${place}`,
    `  between ${a} and ${b}`,
    `  ${values === undefined ? 'run again from the same state it had equal bits: the fault comes and goes' : differingText(values)}`,
    `  ${others} more tensors of this step differ, counted for each leaf`,
  ];
}

function stateText(state: readonly TensorDifference[], [a, b]: readonly [string, string]): string[] {
  return [`the state differs between ${a} and ${b}:`, ...listed(state)];
}

/** @returns whether they are the same */
function reportRuns({ steps, tensors, differences, plans }: ComparedRuns, output: Output): boolean {
  const same = differences.length === 0;
  output.event({ event: 'verify', same, steps, tensors, differences, plans });
  for (const line of plans) output.say(`the runs differ in ${line}`);
  if (same && !output.json) console.log(`same bits: ${tensors} tensors at step ${steps.join(', ')}`);
  if (same) return true;
  const equal = steps.slice(0, -1);
  if (equal.length > 0) output.say(`same bits at step ${equal.join(', ')}`);
  output.say(`step ${steps.at(-1)}: ${differences.length} of ${tensors} tensors differ`);
  for (const line of listed(differences)) output.say(line);
  return false;
}

function listed(differences: readonly TensorDifference[]): string[] {
  const more = differences.length - SHOWN;
  return [
    ...differences
      .slice(0, SHOWN)
      .map(
        ({ name, values, reason }) => `  ${name}: ${values === undefined ? reason : differingText(values)}`,
      ),
    ...(more > 0 ? [`  and ${more} more`] : []),
  ];
}
