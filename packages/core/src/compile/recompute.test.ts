import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Device } from '../device.ts';
import { SOFTWARE } from '../kernel.ts';
import { programBytes } from '../memory-report.ts';
import * as nn from '../nn/index.ts';
import { add } from '../ops/arithmetic.ts';
import { geluSigmoid, square } from '../ops/elementwise.ts';
import { sum } from '../ops/reduce.ts';
import { slice } from '../ops/shape.ts';
import { adam, clipGlobalNorm } from '../optim/index.ts';
import { input } from '../parameter.ts';
import type { Program } from '../program.ts';
import type { Tensor } from '../tensor.ts';
import { trace } from '../trace.ts';
import { trainStep } from '../train-step.ts';
import { type BuildOptions, build, compile, type Traceable } from './compile.ts';
import { fuse } from './fuse.ts';
import { updateInPlace } from './in-place.ts';
import type { Sharded } from './layout.ts';
import { liveRanges, type Storage, touched } from './lives.ts';
import { assignSlots, pieces } from './memory.ts';
import { shortenLives } from './order.ts';
import { forwardPass, recompute, withOwnInputs } from './recompute.ts';
import { shard } from './shard.ts';
import { simplify } from './simplify.ts';
import { type Stages, split, type Work } from './split.ts';
import { layOutSums, leafSums, storageBytes } from './storage-bytes.ts';
import { nodeOf, stored } from './stored.ts';

const convBlock = (inputs: number, outputs: number, size: number): nn.Layer =>
  nn.sequential({
    gelu: geluSigmoid,
    conv: nn.conv1d({ inputs, outputs, size, bias: false }),
    norm: nn.batchNorm({ channels: outputs }),
    pool: nn.maxPool({ size: 2 }),
  });

function residual(channels: number, dilation: number): nn.Layer {
  const branch = nn.sequential({
    gelu: geluSigmoid,
    conv: nn.conv1d({ inputs: channels, outputs: channels, size: 3, dilation, bias: false }),
    norm: nn.batchNorm({ channels }),
    dropout: nn.dropout({ rate: 0.3 }),
  });
  return nn.layer({ branch }, (x: Tensor) => add(x, branch(x)));
}

const training = (model: nn.Layer, group: 'sequence' | 'step'): Traceable =>
  trainStep({
    model,
    loss: nn.poissonLoss,
    optimizer: adam({ learningRate: 0.01, clip: clipGlobalNorm(1) }),
    batchNorm: { group, sequences: 1 },
  });

/** Basenji2 in small: stem, tower, dilated residual blocks with dropout, crop, head. */
const basenji = (group: 'sequence' | 'step'): Traceable =>
  training(
    nn.sequential({
      stem: convBlock(4, 16, 7),
      tower: nn.sequential([convBlock(16, 16, 5), convBlock(16, 16, 5)]),
      dilated: nn.sequential([residual(16, 1), residual(16, 2)]),
      crop: (x) => slice(x, { from: 0, to: 48 }),
      head: nn.linear({ inputs: 16, outputs: 3 }),
      rate: nn.softplus,
    }),
    group,
  );
/** 8 MiB of stored tensor for each leaf: batch norm with GELU and dropout, a row norm, a residual sum. */
const large = (): Traceable =>
  training(
    nn.sequential({
      stem: nn.conv1d({ inputs: 4, outputs: 16, size: 3 }),
      block: residual(16, 2),
      up: nn.linear({ inputs: 16, outputs: 16 }),
      norm: nn.layerNorm({ channels: 16 }),
      down: nn.linear({ inputs: 16, outputs: 16 }),
      act: nn.sequential({
        norm: nn.batchNorm({ channels: 16 }),
        gelu: geluSigmoid,
        drop: nn.dropout({ rate: 0.5 }),
      }),
      head: nn.conv1d({ inputs: 16, outputs: 1, size: 1 }),
      rate: nn.softplus,
    }),
    'sequence',
  );
const LARGE_ROWS = { inputs: { x: [1, 262_144, 4], y: [1, 262_144, 1] }, leavesPerSequence: 2 } as const;
const LARGE = { inputs: { x: [1, 131_072, 4], y: [1, 131_072, 1] } } as const;
const SHAPES = { inputs: { x: [4, 512, 4], y: [4, 48, 3] }, leaves: 4 } as const;
const bytes = (program: Program): number => Object.values(programBytes(program)).reduce((a, b) => a + b, 0);
const built = (options: Partial<BuildOptions>, group: 'sequence' | 'step' = 'sequence'): Program =>
  build(basenji(group), { ...SHAPES, ...options }).program;
const again = (program: Program): string[] =>
  program.segments
    .flatMap(({ leaf }) => leaf.map(({ label }) => label))
    .filter((label) => label.endsWith(' again'));

describe('recomputing', () => {
  test('keeps the bits of the plan and needs less memory', () => {
    for (const group of ['sequence', 'step'] as const) {
      const all = built({}, group);
      expect(again(all)).toEqual([]);
      for (const recompute of [['tower.*'], ['stem', 'tower', 'dilated.*'], ['*']]) {
        const program = built({ recompute }, group);
        expect(program.bitsId).toBe(all.bitsId);
        expect(again(program).length).toBeGreaterThan(5);
        expect(bytes(program)).toBeLessThan(0.94 * bytes(all));
      }
    }
    expect(bytes(built({ recompute: ['*'] }, 'step'))).toBeLessThan(0.7 * bytes(built({}, 'step')));
  });

  test('keeps what a layer hands to others, and what is small and shared: statistics', () => {
    expect(again(built({ recompute: ['tower.*'] }))).toEqual([
      'tower.1.gelu: geluSigmoid [1, 128, 16] again',
      'tower.1.conv: conv1d [1, 128, 16] again',
      'tower.1.norm: batchNormalize [1, 128, 16] again',
      'tower.0.gelu: geluSigmoid [1, 256, 16] again',
      'tower.0.conv: conv1d [1, 256, 16] again',
      'tower.0.norm: batchNormalize [1, 256, 16] again',
    ]);
  });

  test('chooses by a budget, and no more than the budget asks for', () => {
    for (const group of ['sequence', 'step'] as const) {
      const whole = bytes(built({}, group));
      const counts = [1, 0.95, 0.9].map((share) => {
        const program = built({ memoryBudget: Math.round(share * whole) }, group);
        expect(bytes(program)).toBeLessThanOrEqual(share * whole);
        expect(program.bitsId).toBe(built({}, group).bitsId);
        return again(program).length;
      });
      expect(counts[0]).toBe(0);
      expect(counts[1]).toBeGreaterThan(0);
      expect(counts[2]).toBeGreaterThanOrEqual(counts[1]!);
    }
  });

  test('counts the leaves of one device only', () => {
    const needed = programBytes(built({}, 'step'), 1);
    const memoryBudget = Object.values(needed).reduce((a, b) => a + b, 0);
    expect(again(built({ memoryBudget, leavesOnDevice: 1 }, 'step'))).toEqual([]);
    expect(() => built({ memoryBudget, leavesOnDevice: 4 }, 'step')).toThrow(/memoryBudget/);
  });

  test('refuses layers that do not exist and budgets that nothing fits', () => {
    expect(() => built({ recompute: ['towr.*'] })).toThrow(/no layer matches 'towr\.\*'; there are stem/);
    expect(() => built({ memoryBudget: 1000 })).toThrow(
      /memoryBudget: 1000 bytes are too few.*the step needs \d+/,
    );
  });
});

describe('what is large and cheap', () => {
  test.each([LARGE, LARGE_ROWS])('is computed again from what is kept, unless told not to', (options) => {
    const { program } = build(large(), options);
    const kept = build(large(), { ...options, recompute: false }).program;
    expect(again(kept)).toEqual([]);
    expect(again(program)).toEqual([
      'act.drop: dropout [1, 131072, 16] again', // with batch norm and GELU inside
      'norm: rowNormalize [1, 131072, 16] again',
      'block: add [1, 131072, 16] again',
      'block.branch.gelu: geluSigmoid [1, 131072, 16] again',
    ]);
    expect(program.bitsId).toBe(kept.bitsId);
    const { device, leaf, all } = program.activations!;
    expect(all.device + all.leaf - device - leaf).toBe(4 * 2 ** 23);
    expect(bytes(program)).toBeLessThan(bytes(kept) - 2 * 2 ** 23);
  });

  test('is kept where it is made of what is computed again', () => {
    const after = nn.sequential({
      stem: nn.conv1d({ inputs: 4, outputs: 16, size: 1 }),
      block: residual(16, 1),
      norm: nn.layerNorm({ channels: 16 }),
      head: nn.linear({ inputs: 16, outputs: 3 }),
    });
    const inputs = { x: [1, 131_072, 4], y: [1, 131_072, 3] };
    expect(again(build(training(after, 'sequence'), { inputs }).program)).toEqual([
      'block: add [1, 131072, 16] again',
      'block.branch.gelu: geluSigmoid [1, 131072, 16] again',
    ]);
  });

  test('is kept below 8 MiB in a leaf, whatever the number of leaves', () => {
    const { x, y } = { x: [4, 131_064, 4], y: [4, 131_064, 1] };
    expect(again(build(large(), { inputs: { x, y }, leaves: 4 }).program)).toEqual([]);
  });
});

/** What lies where in a buffer. */
type Contents = Map<Storage, { readonly from: number; readonly to: number }>;

/** Runs a step on names instead of numbers: every read must find in its place what it asks for, whole. */
function checkPlaces({ sharded, stages, leaves }: Split): void {
  const bytes = storageBytes(sharded, layOutSums(leafSums(sharded.graph), stages));
  const lives = pieces(liveRanges(sharded, stages), { sharded, stages, bytes });
  const { slots, places } = assignSlots([...lives.values()]);
  const placeOf = new Map([...lives.keys()].map((x, i) => [x, places[i]!]));
  const buffers = new Map<string, Contents>();
  const buffer = (x: Storage, leaf: number): Contents => {
    const { slot } = placeOf.get(x)!;
    const key = slots[slot]!.scope === 'leaf' ? `${slot} of leaf ${leaf}` : `${slot}`;
    buffers.set(key, buffers.get(key) ?? new Map());
    return buffers.get(key)!;
  };
  const write = (x: Storage, leaf: number): void => {
    const own = buffer(x, leaf);
    const from = placeOf.get(x)!.offset;
    const to = from + lives.get(x)!.bytes;
    for (const [other, range] of own) if (from < range.to && range.from < to) own.delete(other);
    own.set(x, { from, to });
  };
  const read = (x: Storage, leaf: number): void => expect(buffer(x, leaf).has(x), String(x)).toBe(true);
  for (const [x, { first }] of lives)
    if (first === 0) for (let leaf = 0; leaf < leaves; leaf++) write(x, leaf);
  const run = (work: Work, leaf: number): void => {
    const [reads, writes] = touched(work);
    for (const x of reads) read(x, leaf);
    if (writes === undefined) return;
    expect(reads.map((x) => buffer(x, leaf))).not.toContain(buffer(writes, leaf));
    write(writes, leaf);
  };
  for (const stage of stages.stages) {
    for (const work of stage.once) run(work, 0);
    for (let leaf = 0; leaf < leaves; leaf++) {
      for (const work of stage.leaf) run(work, leaf);
      for (const node of stage.gather) read(stored(node.inputs.x!), leaf);
      for (const node of stage.gather) write(node, leaf);
    }
  }
}

interface Split {
  readonly sharded: Sharded;
  readonly stages: Stages;
  readonly leaves: number;
}

const SCALARS = ['learningRate', 'adam.mCorrection', 'adam.vCorrection'];

function splitGraph(
  fn: Traceable,
  inputs: Readonly<Record<string, readonly number[]>>,
  leaves: number,
): Split {
  const tensors = Object.entries(inputs).map(([name, shape]) => [name, input(name, shape)] as const);
  const graph = trace(() => fn(Object.fromEntries(tensors)));
  const sharded = shard(simplify(graph), leaves);
  const fused = fuse(sharded.graph);
  const stages = updateInPlace(split(sharded, fused, SCALARS, SOFTWARE), sharded, fused, SCALARS);
  return { sharded, stages: shortenLives(stages, sharded), leaves };
}

test('every kernel finds what it reads, whatever is computed again', () => {
  const kinds = {
    conv: () => convBlock(4, 4, 3),
    residual: () => residual(4, 2),
    dense: () => nn.linear({ inputs: 4, outputs: 4 }),
    gelu: () => geluSigmoid,
    smooth: () => (x: Tensor) => add(x, geluSigmoid(x)),
  };
  const model = fc.array(fc.constantFrom(...Object.values(kinds)), { minLength: 1, maxLength: 6 });
  fc.assert(
    fc.property(
      model,
      fc.constantFrom('sequence', 'step'),
      fc.constantFrom(1, 3),
      fc.infiniteStream(fc.boolean()),
      (parts, group, leaves, coins) => {
        const whole = nn.sequential(parts.map((part) => part()));
        const length = 256;
        const loss: nn.Loss = (y) => sum(square(y));
        const step = trainStep({
          model: whole,
          loss,
          optimizer: adam({ learningRate: 0.01 }),
          batchNorm: { group: group as 'sequence' | 'step', sequences: 1 },
        });
        const { sharded, stages } = splitGraph(step, { x: [leaves, length, 4] }, leaves);
        const forward = forwardPass(stages);
        expect([...forward.producers.keys()].filter((x) => nodeOf(x).op.name === 'mergeMoments')).toEqual([]);
        const dropped = new Set([...forward.producers.keys()].filter(() => coins.next().value));
        checkPlaces({ sharded, stages, leaves });
        checkPlaces({ sharded, stages: recompute(stages, dropped, forward), leaves });
        checkPlaces({ sharded, stages: recompute(stages, withOwnInputs(dropped, forward), forward), leaves });
      },
    ),
    { numRuns: 30 },
  );
});

describe('on a device', () => {
  let device: Device;
  beforeAll(async () => {
    device = await Device.open();
  });
  afterAll(async () => {
    await device.close();
  });

  const weightsAfter = async (fn: Traceable, options: BuildOptions, steps = 3): Promise<unknown> => {
    const step = await compile(fn, { device, ...options, seed: 5 });
    const draw = (name: string, value: (i: number) => number): Float32Array => {
      const { shape } = step.program.inputs.find((input) => input.name === name)!;
      return Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => value(i));
    };
    for (let k = 0; k < steps; k++) {
      step.executor.poison();
      const y = draw('y', (i) => Math.abs(Math.cos(i * 2.3 + k)));
      await step({ x: draw('x', (i) => Math.sin(i * 1.7 + k)), y });
    }
    const state = await step.state.read();
    step.close();
    step.state.close();
    return state;
  };

  test.each(['sequence', 'step'] as const)(
    'weights have the same bits, batch norm over each %s',
    async (group) => {
      const expected = await weightsAfter(basenji(group), SHAPES);
      const whole = bytes(built({}, group));
      const choices: Partial<BuildOptions>[] = [
        { recompute: ['tower.*', 'dilated.*'] },
        { recompute: ['*'] },
        { recompute: ['tower.*'], bindingLimit: 8192 },
        ...[0.95, 0.9, 0.85].map((share) => ({ memoryBudget: Math.round(share * whole) })),
      ];
      for (const options of choices)
        expect(
          await weightsAfter(basenji(group), { ...SHAPES, ...options }),
          JSON.stringify(options),
        ).toEqual(expected);
    },
  );

  test('weights have the same bits where sequences are cut into rows', async () => {
    const model = nn.sequential({
      stem: convBlock(4, 8, 3),
      deep: convBlock(8, 8, 3),
      head: nn.linear({ inputs: 8, outputs: 3 }),
      rate: nn.softplus,
    });
    const fn = training(model, 'sequence');
    const options = { inputs: { x: [2, 64, 4], y: [2, 16, 3] }, leavesPerSequence: 4 };
    const recomputed = { ...options, recompute: ['*'] };
    expect(again(build(fn, recomputed).program).length).toBeGreaterThan(5);
    expect(await weightsAfter(fn, recomputed)).toEqual(await weightsAfter(fn, options));
  });

  test('weights have the same bits whether what is large and cheap is kept or not', async () => {
    const kept = await weightsAfter(large(), { ...LARGE, recompute: false }, 1);
    expect(await weightsAfter(large(), LARGE, 1)).toEqual(kept);
  });
});
