import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Device } from '../device.ts';
import { conv1d } from '../nn/conv.ts';
import { type AnyLayer, layer } from '../nn/layer.ts';
import { linear } from '../nn/linear.ts';
import { poissonLoss } from '../nn/loss.ts';
import { batchNorm } from '../nn/norm.ts';
import { add } from '../ops/arithmetic.ts';
import { relu, softplus } from '../ops/elementwise.ts';
import { maxPool1d } from '../ops/pool.ts';
import { dropout } from '../ops/random.ts';
import { slice } from '../ops/shape.ts';
import { sgd } from '../optim/sgd.ts';
import { rounds } from '../program.ts';
import type { Tensor } from '../tensor.ts';
import { randomTensor } from '../testing.ts';
import { trainStep } from '../train-step.ts';
import { build, compile, type Traceable } from './compile.ts';

let device: Device;
beforeAll(async () => {
  device = await Device.open();
});
afterAll(() => device.close());

const LENGTH = 384;
const BINS = 96; // two pools of 2
const CROP = 24;

interface Options {
  readonly dilation?: number;
  readonly crop?: number;
  readonly drop?: number;
}

/** A trunk of convolution, norm and pool, a dilated residual block, a crop and a head per bin. */
function network({ dilation = 3, crop = CROP, drop = 0 }: Options = {}): AnyLayer & ((x: Tensor) => Tensor) {
  const parts = {
    stem: conv1d({ inputs: 4, outputs: 6, size: 7, bias: false }),
    norm: batchNorm({ channels: 6 }),
    tower: conv1d({ inputs: 6, outputs: 8, size: 4, bias: false }),
    towerNorm: batchNorm({ channels: 8 }),
    dilated: conv1d({ inputs: 8, outputs: 8, size: 3, dilation }),
    head: linear({ inputs: 8, outputs: 3 }),
  };
  return layer(parts, (x: Tensor) => {
    const stem = maxPool1d(relu(parts.norm(parts.stem(x))), { size: 2 });
    const tower = maxPool1d(relu(parts.towerNorm(parts.tower(stem))), { size: 2 });
    const residual = add(tower, dropout(relu(parts.dilated(tower)), { rate: drop }));
    const cropped = crop === 0 ? residual : slice(residual, { from: crop, to: BINS - crop });
    return softplus(parts.head(cropped));
  });
}

const SEQUENCES = 2;
const inputs = (crop = CROP) => ({ x: [SEQUENCES, LENGTH, 4], y: [SEQUENCES, BINS - 2 * crop, 3] });
const training = (options: Options = {}): Traceable =>
  trainStep({
    model: network(options),
    loss: poissonLoss,
    optimizer: sgd({ learningRate: 0.1, momentum: 0.9 }),
  });

async function trained(
  options: Options,
  leaves: { readonly leaves?: number; readonly leavesPerSequence?: number },
  { steps = 2, poison = false } = {},
): Promise<{ readonly losses: number[]; readonly state: Map<string, ArrayLike<number>> }> {
  const shapes = inputs(options.crop);
  const step = await compile(training(options), { device, inputs: shapes, seed: 3, ...leaves });
  const losses: number[] = [];
  for (let i = 0; i < steps; i++) {
    if (poison) step.executor.poison();
    const x = randomTensor(shapes.x, { seed: 10 + i });
    const y = randomTensor(shapes.y, { seed: 20 + i, range: [0, 3] });
    losses.push((await step({ x, y })).loss!.data[0] as number);
  }
  const state = new Map(
    [...(await step.state.read())].map(([name, { data }]) => [name, data as Float32Array]),
  );
  step.close();
  return { losses, state };
}

function largestDifference(a: Map<string, ArrayLike<number>>, b: Map<string, ArrayLike<number>>): number {
  let largest = 0;
  for (const [name, values] of a) {
    const others = b.get(name)!;
    const scale = Math.max(...Array.from(values, Math.abs), 1e-3);
    for (let i = 0; i < values.length; i++)
      largest = Math.max(largest, Math.abs(values[i]! - others[i]!) / scale);
  }
  return largest;
}

describe('sequences cut into rows', () => {
  test.each([
    ['halos of a few rows, cropped between parts', {}, 4],
    ['more parts, of which the outer ones hold no bin', {}, 8],
    ['halos wider than a part', { dilation: 29 }, 8],
    ['no crop', { crop: 0 }, 6],
    ['dropout draws the same words', { drop: 0.4 }, 4],
  ] as const)(
    '%s: losses and weights are those of whole sequences, within f32 rounding',
    async (_, options, parts) => {
      const whole = await trained(options, { leaves: SEQUENCES });
      const cut = await trained(options, { leavesPerSequence: parts });
      expect(cut.losses[0]).toBeCloseTo(whole.losses[0]!, 5);
      expect(cut.losses[1]).toBeCloseTo(whole.losses[1]!, 5);
      expect(largestDifference(whole.state, cut.state)).toBeLessThan(3e-6);
    },
  );

  test('nothing is read that a step did not write', async () => {
    const clean = await trained({}, { leavesPerSequence: 8 });
    const poisoned = await trained({}, { leavesPerSequence: 8 }, { poison: true });
    expect(poisoned).toEqual(clean);
  });

  test('sequences follow one another, so their number takes no memory', () => {
    const { program } = build(training(), { inputs: inputs(), leavesPerSequence: 8 });
    expect(rounds(program)).toEqual({ count: SEQUENCES, leaves: 8 });
    const bytes = (batch: number): number => {
      const shapes = { x: [batch, LENGTH, 4], y: [batch, BINS - 2 * CROP, 3] };
      const { slots } = build(training(), { inputs: shapes, leavesPerSequence: 8 }).program;
      return slots.reduce((sum, slot) => sum + slot.bytes, 0);
    };
    expect(bytes(4) - bytes(2)).toBeLessThan(2000); // moments and the loss of two more sequences
  });

  test('what does not fit says so: parts, windows and crops', () => {
    const refuse = (options: Options, parts: number, message: RegExp): void =>
      expect(() =>
        build(training(options), { inputs: inputs(options.crop), leavesPerSequence: parts }),
      ).toThrow(message);
    refuse({}, 64, /parts of 6 rows|parts of 3 rows/);
    refuse(
      { crop: 10 },
      4,
      /76 rows do not fill whole parts of 24 rows, the first of which begins at row -10/,
    );
  });
});
