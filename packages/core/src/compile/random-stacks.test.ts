import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Device } from '../device.ts';
import type { GatherPart } from '../exchange.ts';
import { Executor } from '../executor.ts';
import { initialScales } from '../gradient-scale.ts';
import { nn } from '../index.ts';
import { add } from '../ops/arithmetic.ts';
import { dropout } from '../ops/random.ts';
import { slice } from '../ops/shape.ts';
import { sgd } from '../optim/sgd.ts';
import { rounds } from '../program.ts';
import { StateStore } from '../state.ts';
import type { Tensor } from '../tensor.ts';
import { Together } from '../testing/together.ts';
import { randomTensor } from '../testing.ts';
import { trainStep } from '../train-step.ts';
import { type Built, build, initialState } from './compile.ts';

let device: Device;
beforeAll(async () => {
  device = await Device.open();
});
afterAll(() => device.close());

type Stage =
  | { readonly kind: 'conv'; readonly size: number; readonly dilation: number }
  | { readonly kind: 'norm' }
  | { readonly kind: 'residual' }
  | { readonly kind: 'pool'; readonly size: number };

/** A stack of convolutions, norms and pools over sequences in parts, which ranks share. */
interface Stack {
  readonly stages: readonly Stage[];
  /** Rows of the last layer in each part. */
  readonly bins: number;
  /** Of these rows, from each end. */
  readonly crop: number;
  /** Parts of each rank. */
  readonly deal: readonly number[];
}

const SEQUENCES = 2;
const CHANNELS = 3;
const FRAME = { seed: 5, step: 0, sequence: 0, scalars: { learningRate: 0.1 } };
const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

const stage = fc.oneof(
  fc.record({
    kind: fc.constant('conv' as const),
    size: fc.integer({ min: 1, max: 9 }),
    dilation: fc.integer({ min: 1, max: 6 }),
  }),
  fc.constant({ kind: 'norm' as const }),
  fc.constant({ kind: 'residual' as const }),
  fc.record({ kind: fc.constant('pool' as const), size: fc.integer({ min: 2, max: 3 }) }),
);
const stack: fc.Arbitrary<Stack> = fc
  .record({
    stages: fc.array(stage, { minLength: 1, maxLength: 4 }),
    bins: fc.integer({ min: 1, max: 7 }),
    crop: fc.integer({ min: 0, max: 9 }),
    deal: fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 2, maxLength: 3 }),
  })
  .filter(({ bins, crop, deal }) => 2 * crop < bins * sum(deal));

/** x with itself, normalised and dropped from, added. */
function residual(): nn.Layer {
  const norm = nn.batchNorm({ channels: CHANNELS });
  return nn.layer({ norm }, (x: Tensor) => add(x, dropout(norm(x), { rate: 0.3 })));
}

function stepOf({ stages, crop }: Stack) {
  const trunk = nn.sequential([
    nn.conv1d({ inputs: 4, outputs: CHANNELS, size: 3 }),
    ...stages.map((one) => {
      if (one.kind === 'norm') return nn.batchNorm({ channels: CHANNELS });
      if (one.kind === 'residual') return residual();
      if (one.kind === 'pool') return nn.maxPool({ size: one.size });
      return nn.conv1d({ inputs: CHANNELS, outputs: CHANNELS, ...one });
    }),
    (x: Tensor) => slice(x, { axis: 1, from: crop, to: x.shape[1]! - crop }),
  ]);
  return trainStep({ model: trunk, loss: nn.mseLoss, optimizer: sgd({ learningRate: 0.1, momentum: 0.9 }) });
}

function shapesOf({ stages, bins, crop, deal }: Stack) {
  const rows = bins * sum(deal);
  const length = stages.reduce((n, one) => (one.kind === 'pool' ? n * one.size : n), rows);
  return { x: [SEQUENCES, length, 4], y: [SEQUENCES, rows - 2 * crop, CHANNELS] };
}

/** State after one step on ranks that have the given parts of each sequence, or whole sequences. */
async function trained(
  { program, parameters }: Built,
  inputs: Readonly<Record<string, Float32Array>>,
  deal: readonly (readonly number[])[],
  together = new Together(deal.length, 1000),
): Promise<Float32Array[]> {
  const ranks = await Promise.all(
    deal.map(async (leaves) => {
      const store = new StateStore(device);
      const shares = Array.from({ length: rounds(program).count }, (_, round) => ({ round, leaves }));
      const executor = await Executor.create(device, program, store, shares);
      store.write(initialState(parameters, 3));
      executor.setInputs(inputs);
      return { store, executor };
    }),
  );
  let q = initialScales(program.sums!);
  for (;;) {
    const runs = ranks.map(({ executor }) =>
      executor.run(FRAME, deal.length === 1 ? undefined : together.exchange(), q),
    );
    const [decision] = await Promise.all(runs);
    if (decision!.kind === 'commit') break;
    if (decision!.kind === 'not-finite') throw new Error(`${decision!.tensor} is not finite`);
    q = decision!.q;
  }
  const states = await Promise.all(ranks.map(async ({ store }) => [...(await store.read()).values()]));
  for (const { executor } of ranks) executor.close();
  const values = states.map((state) => state.map(({ data }) => data as Float32Array));
  for (const state of values) expect(state).toEqual(values[0]);
  return values[0]!;
}

/** Parts in their order, so many for each rank. */
function dealt(counts: readonly number[]): number[][] {
  let next = 0;
  return counts.map((count) => Array.from({ length: count }, () => next++));
}

function inputsOf(shapes: ReturnType<typeof shapesOf>): Record<string, Float32Array> {
  const values = (shape: readonly number[], seed: number) =>
    randomTensor(shape, { seed }).data as Float32Array;
  return { x: values(shapes.x, 1), y: values(shapes.y, 2) };
}

/** Relative to the largest value, or where gradients cancel, as before a norm, to a hundredth. */
const difference = (values: Float32Array, expected: Float32Array): number =>
  Math.max(...values.map((value, i) => Math.abs(value - expected[i]!))) /
  Math.max(0.01, ...expected.map(Math.abs));

test('random stacks in parts have the bits of one rank on unequal ranks, and the values of whole sequences', async () => {
  await fc.assert(
    fc.asyncProperty(stack, async (one) => {
      const shapes = shapesOf(one);
      const inputs = inputsOf(shapes);
      const cut = build(stepOf(one), { inputs: shapes, leavesPerSequence: sum(one.deal) });
      const whole = build(stepOf(one), { inputs: shapes, leaves: SEQUENCES });
      const alone = await trained(cut, inputs, [dealt(one.deal).flat()]);
      expect(await trained(cut, inputs, dealt(one.deal))).toEqual(alone);
      const expected = await trained(whole, inputs, [[0, 1]]);
      for (const [i, values] of alone.entries()) expect(difference(values, expected[i]!)).toBeLessThan(1e-4);
    }),
    { numRuns: 10, seed: 7 },
  );
});

/** What could go wrong with the bytes that a rank gives, in rows of one position. */
const FAULTS: Readonly<Record<string, (rows: Uint8Array[]) => void>> = {
  'nothing is exchanged': (rows) => {
    for (const row of rows) row.fill(0);
  },
  'the first row is dropped': (rows) => void rows.at(0)?.fill(0),
  'the last row is dropped': (rows) => void rows.at(-1)?.fill(0),
  'rows are in another order': (rows) => {
    const reversed = rows.map((row) => row.slice()).reverse();
    for (const [i, row] of rows.entries()) row.set(reversed[i]!);
  },
};
const ROW_BYTES = 4 * CHANNELS;

/** Ranks of which one meeting goes wrong; `at` beyond the last: none does. */
class Faulty extends Together {
  meetings = 0;
  private readonly at: number;
  private readonly fault: (rows: Uint8Array[]) => void;

  constructor(at: number, fault: (rows: Uint8Array[]) => void) {
    super(2, 2 ** 20);
    this.at = at;
    this.fault = fault;
  }

  protected override all(brought: readonly unknown[]): readonly unknown[] {
    if (!brought.every((parts): parts is GatherPart[] => Array.isArray(parts))) return brought;
    if (this.meetings++ !== this.at) return brought;
    return brought.map((parts) =>
      parts.map((part) => {
        const own = part.own.slice();
        const count = Math.ceil(own.length / ROW_BYTES);
        this.fault(Array.from({ length: count }, (_, i) => own.subarray(i * ROW_BYTES, (i + 1) * ROW_BYTES)));
        return { ...part, own };
      }),
    );
  }
}

test('whatever goes wrong in any one exchange of a step shows in the bits of the weights', async () => {
  const one: Stack = {
    stages: [
      { kind: 'norm' },
      { kind: 'conv', size: 5, dilation: 2 },
      { kind: 'pool', size: 2 },
      { kind: 'residual' },
      { kind: 'conv', size: 3, dilation: 1 },
      { kind: 'norm' },
      { kind: 'conv', size: 3, dilation: 2 },
    ],
    bins: 6,
    crop: 2,
    deal: [1, 1],
  };
  const shapes = shapesOf(one);
  const inputs = inputsOf(shapes);
  const built = build(stepOf(one), { inputs: shapes, leavesPerSequence: 2 });
  const alone = await trained(built, inputs, [[0, 1]]);
  const sound = new Faulty(Number.POSITIVE_INFINITY, () => undefined);
  expect(await trained(built, inputs, [[0], [1]], sound)).toEqual(alone);
  expect(sound.meetings).toBeGreaterThan(10);
  const unseen: string[] = [];
  for (let at = 0; at < sound.meetings; at++) {
    for (const [name, fault] of Object.entries(FAULTS)) {
      const run = trained(built, inputs, [[0], [1]], new Faulty(at, fault));
      const differs = await run.then(
        (state) => state.some((values, i) => values.some((value, k) => !Object.is(value, alone[i]![k]))),
        () => true, // ranks are not alike
      );
      if (!differs) unseen.push(`exchange ${at}: ${name}`);
    }
  }
  expect(unseen).toEqual([]);
});

test('a gradient that is halved on one rank shows', async () => {
  class Halving extends Together {
    protected override all(brought: readonly unknown[]): readonly unknown[] {
      const [first, ...others] = brought;
      return first instanceof BigInt64Array ? [first.map((value) => value / 2n), ...others] : brought;
    }
  }
  const one: Stack = { stages: [{ kind: 'conv', size: 3, dilation: 1 }], bins: 4, crop: 1, deal: [1, 1] };
  const shapes = shapesOf(one);
  const built = build(stepOf(one), { inputs: shapes, leavesPerSequence: 2 });
  const alone = await trained(built, inputsOf(shapes), [[0, 1]]);
  expect(await trained(built, inputsOf(shapes), [[0], [1]], new Halving(2, 1000))).not.toEqual(alone);
});
