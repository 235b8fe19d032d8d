import { expect, test } from 'vitest';
import { nn } from '../../index.ts';
import { add } from '../../ops/arithmetic.ts';
import { relu } from '../../ops/elementwise.ts';
import { sum } from '../../ops/reduce.ts';
import { adam } from '../../optim/adam.ts';
import { clipGlobalNorm } from '../../optim/norms.ts';
import { buffer } from '../../parameter.ts';
import type { Program } from '../../program.ts';
import { type StageAction, setsInFlight } from '../../stage-executor.ts';
import type { Tensor } from '../../tensor.ts';
import { trainStep } from '../../train-step.ts';
import { build, buildStages } from '../compile.ts';

const LENGTH = 64;

const block = (inputs: number, outputs: number): nn.Layer =>
  nn.sequential({
    conv: nn.conv1d({ inputs, outputs, size: 5, padding: 'same' }),
    norm: nn.batchNorm({ channels: outputs }),
    relu,
    pool: nn.maxPool({ size: 2 }),
  });

const step = () =>
  trainStep({
    model: nn.sequential({
      stem: block(4, 6),
      deep: block(6, 8),
      head: nn.linear({ inputs: 8, outputs: 3 }),
      rate: nn.softplus,
    }),
    loss: nn.poissonLoss,
    optimizer: adam({ learningRate: 1e-2, clip: clipGlobalNorm(0.5) }),
  });

const OPTIONS = { leaves: 4, inputs: { x: [4, LENGTH, 4], y: [4, LENGTH / 4, 3] } };

test('stages divide the kernels of one program among them, each with its own memory', () => {
  const whole = build(step(), OPTIONS).program;
  const leafSteps = whole.segments
    .flatMap(({ leaf }) => leaf)
    .map(({ label, shader, workgroups }) => [label, whole.shaders[shader], workgroups]);
  for (const splitBackward of [false, true]) {
    const { stages, bitsId } = buildStages(step(), {
      ...OPTIONS,
      stages: ['stem', 'deep', 'head'],
      splitBackward,
    }).program;
    expect(bitsId).toBe(whole.bitsId);
    const divided = stages.flatMap(({ segments, shaders }) =>
      segments
        .flatMap(({ leaf }) => leaf)
        .map(({ label, shader, workgroups }) => [label, shaders[shader], workgroups]),
    );
    const text = (list: unknown[]): string[] => list.map((one) => JSON.stringify(one)).sort();
    expect(text(divided)).toEqual(text(leafSteps));
  }
});

test('stages of sequences in parts divide the kernels too, and gather only among their own ranks', () => {
  const options = { inputs: OPTIONS.inputs, leavesPerSequence: 4 };
  const whole = build(step(), options).program;
  const text = (programs: readonly Program[]): string[] =>
    programs
      .flatMap(({ segments, shaders, update }) =>
        segments
          .slice(0, update)
          .flatMap(({ once, leaf }) =>
            [...once, ...leaf].map(({ label, shader, workgroups }) =>
              JSON.stringify([label, shaders[shader], workgroups]),
            ),
          ),
      )
      .sort();
  const gathers = (programs: readonly Program[]): number =>
    programs.flatMap(({ segments }) => segments.flatMap(({ combine }) => combine)).length;
  for (const splitBackward of [false, true]) {
    const { stages, bitsId } = buildStages(step(), {
      ...options,
      stages: ['stem', 'deep', 'head'],
      splitBackward,
    }).program;
    expect(bitsId).toBe(whole.bitsId);
    expect(text(stages)).toEqual(text([whole]));
    expect(gathers(stages)).toBe(gathers([whole]));
    expect(stages.map(({ actions }) => Object.keys(actions).length)).toEqual(
      splitBackward ? [3, 3, 3] : [2, 2, 2],
    );
    const [tensor] = stages[0]!.links[0]!.tensors;
    expect(tensor).toMatchObject({ parts: [0, 4], bytes: (LENGTH / 2 / 4) * 6 * 4 });
  }
});

test('a cut between blocks hands on one activation and one gradient, and norms of gradients once a step', () => {
  const { stages } = buildStages(step(), { ...OPTIONS, stages: ['stem', 'deep', 'head'] }).program;
  const activation = (LENGTH / 2) * 6 * 4; // bytes
  expect(stages[0]!.links.map(({ value, from, to, bytes }) => [value, from, to, bytes])).toEqual([
    ['activation', 0, 1, activation],
    ['gradient', 1, 0, activation],
  ]);
  const [norms, ...later] = stages[0]!.handOvers;
  expect(norms!.map(({ bytes }) => bytes)).toEqual(norms!.map(() => 4));
  expect(norms).toHaveLength(10); // tensors with a gradient
  expect(later.flat()).toEqual([]);
});

test('weight gradients of their own keep for them what the input gradients made', () => {
  const programs = [false, true].map(
    (splitBackward) =>
      buildStages(step(), { ...OPTIONS, stages: ['stem', 'deep'], splitBackward }).program.stages[1]!,
  );
  const phases = programs.map(({ segments, actions }) =>
    Object.entries(actions).map(([kind, [from, to]]) => [
      kind,
      [...new Set(segments.slice(from, to).flatMap(({ leaf }) => leaf.map(({ phase }) => phase)))]
        .sort()
        .join(''),
    ]),
  );
  expect(phases).toEqual([
    [
      ['forward', 'F'],
      ['backward', 'IW'],
    ],
    [
      ['forward', 'F'],
      ['inputGradient', 'I'],
      ['weightGradient', 'W'],
    ],
  ]);
  const kept = programs.map(({ slots }) =>
    slots.filter(({ scope }) => scope === 'leaf').reduce((total, { bytes }) => total + bytes, 0),
  );
  expect(kept[1]).toBeGreaterThan(kept[0]!);
});

test('weights that act on constants alone are on the stage that uses the result, though no stage names their layer', () => {
  const position = nn.linear({ inputs: 2, outputs: 8, bias: false });
  const table = buffer([5, 2]);
  const late = nn.layer({ position, table }, (x: Tensor) => add(x, sum(position(table), { from: 0, to: 1 })));
  const model = nn.sequential({
    stem: block(4, 6),
    deep: block(6, 8),
    late,
    head: nn.linear({ inputs: 8, outputs: 3 }),
  });
  const fn = trainStep({ model, loss: nn.mseLoss, optimizer: adam({ learningRate: 1e-2 }) });
  const { stages } = buildStages(fn, { ...OPTIONS, stages: ['stem', 'deep'] }).program;
  const holds = stages.map(
    ({ state }) => state.filter(({ name }) => name.endsWith('late.position.weight')).length,
  );
  expect(holds).toEqual([0, 3]); // the weight and two moments
});

test('a rank keeps as many leaves as its schedule has in flight', () => {
  const action =
    (kind: StageAction['kind']) =>
    (microbatch: number): StageAction => ({ kind, microbatch });
  const [forward, backward] = [action('forward'), action('backward')];
  const leaves = [0, 1, 2, 3];
  const count = (actions: readonly StageAction[]): number => new Set(setsInFlight(actions).values()).size;
  expect(count([...leaves.map(forward), ...leaves.map(backward)])).toBe(4);
  expect(count(leaves.flatMap((leaf) => [forward(leaf), backward(leaf)]))).toBe(1);
  expect(
    count([forward(0), ...[1, 2, 3].flatMap((leaf) => [forward(leaf), backward(leaf - 1)]), backward(3)]),
  ).toBe(2);
  expect(count(leaves.map(forward))).toBe(1);
});
