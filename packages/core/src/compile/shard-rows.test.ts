import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Device } from '../device.ts';
import { multiHeadAttention } from '../nn/attention.ts';
import { attentionPool } from '../nn/attention-pool.ts';
import { conv1d } from '../nn/conv.ts';
import { conv2d } from '../nn/conv2d.ts';
import { type AnyLayer, layer } from '../nn/layer.ts';
import { layerNorm } from '../nn/layer-norm.ts';
import { linear } from '../nn/linear.ts';
import { type Loss, mseLoss, poissonLoss, poissonMultinomialLoss } from '../nn/loss.ts';
import { batchNorm } from '../nn/norm.ts';
import { maxPool } from '../nn/pool.ts';
import { sequential } from '../nn/sequential.ts';
import { add } from '../ops/arithmetic.ts';
import { relu, softplus } from '../ops/elementwise.ts';
import { concatDistance2d, oneToTwo, symmetrize2d } from '../ops/pair-map.ts';
import { maxPool1d } from '../ops/pool.ts';
import { dropout } from '../ops/random.ts';
import { crop2d, slice } from '../ops/shape.ts';
import { softmax } from '../ops/softmax.ts';
import { trianglePairs, upperTriangular } from '../ops/triangle.ts';
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
  /** Whether bins are cropped before the residual block, its branch is normalised, and a convolution follows. */
  readonly deep?: boolean;
  readonly dilation?: number;
  readonly crop?: number;
  /** At the end, where it differs. */
  readonly cropEnd?: number;
  readonly drop?: number;
}

/** A trunk of convolution, norm and pool, a dilated residual block, a crop and a head per bin. */
function network(options: Options = {}): AnyLayer & ((x: Tensor) => Tensor) {
  const { deep = false, dilation = 3, crop = CROP, cropEnd = crop, drop = 0 } = options;
  const after = {
    norm: batchNorm({ channels: 8 }),
    conv: conv1d({ inputs: 8, outputs: 8, size: 5, dilation }),
  };
  const parts = {
    stem: conv1d({ inputs: 4, outputs: 6, size: 7, bias: false }),
    norm: batchNorm({ channels: 6 }),
    tower: conv1d({ inputs: 6, outputs: 8, size: 4, bias: false }),
    towerNorm: batchNorm({ channels: 8 }),
    dilated: conv1d({ inputs: 8, outputs: 8, size: 3, dilation, bias: !deep }),
    head: linear({ inputs: 8, outputs: 3 }),
    ...(deep ? { after: sequential(after) } : {}),
  };
  return layer(parts, (x: Tensor) => {
    const stem = maxPool1d(relu(parts.norm(parts.stem(x))), { size: 2 });
    const tower = maxPool1d(relu(parts.towerNorm(parts.tower(stem))), { size: 2 });
    const cropped = (bins: Tensor): Tensor =>
      crop + cropEnd === 0 ? bins : slice(bins, { from: crop, to: BINS - cropEnd });
    const residual = (bins: Tensor): Tensor => {
      const branch = parts.dilated(bins);
      return add(bins, dropout(relu(deep ? after.norm(branch) : branch), { rate: drop }));
    };
    return softplus(parts.head(deep ? after.conv(relu(residual(cropped(tower)))) : cropped(residual(tower))));
  });
}

/** A trunk of bins, and a map of their pairs, made symmetric, cropped, its upper triangle read out: Akita in small. */
function mapNetwork(): AnyLayer & ((x: Tensor) => Tensor) {
  const parts = {
    stem: conv1d({ inputs: 4, outputs: 6, size: 7, bias: false }),
    norm: batchNorm({ channels: 6 }),
    pair: conv2d({ inputs: 7, outputs: 5, size: 3, bias: false }),
    pairNorm: batchNorm({ channels: 5 }),
    dilated: conv2d({ inputs: 5, outputs: 5, size: 3, dilation: 4, bias: false }),
    head: linear({ inputs: 5, outputs: 2 }),
  };
  return layer(parts, (x: Tensor) => {
    const bins = maxPool1d(relu(parts.norm(parts.stem(x))), { size: 16 }); // [b, 24, 6]
    const pairs = concatDistance2d(oneToTwo(bins, { operation: 'mean' })); // [b, 24, 24, 7]
    const map = symmetrize2d(relu(parts.pairNorm(parts.pair(pairs))));
    const residual = symmetrize2d(add(map, dropout(parts.dilated(map), { rate: 0.3 })));
    return parts.head(upperTriangular(crop2d(residual, { crop: 2 }), { offset: 2 })); // [b, pairs, 2]
  });
}

const SEQUENCES = 2;
const inputs = (crop = CROP, cropEnd = crop) => ({
  x: [SEQUENCES, LENGTH, 4],
  y: [SEQUENCES, BINS - crop - cropEnd, 3],
});
const training = (options: Options = {}): Traceable =>
  trainStep({
    model: network(options),
    loss: poissonLoss,
    optimizer: sgd({ learningRate: 0.1, momentum: 0.9 }),
  });

async function trained(
  setup: Options & Setup,
  leaves: { readonly leaves?: number; readonly leavesPerSequence?: number },
  { steps = 2, poison = false } = {},
): Promise<{ readonly losses: number[]; readonly state: Map<string, ArrayLike<number>> }> {
  const { model = network(setup), shapes = inputs(setup.crop, setup.cropEnd), loss = mseLoss } = setup;
  const optimizer = sgd({ learningRate: 0.1, momentum: 0.9 });
  const fn = trainStep({ model, loss, optimizer });
  const step = await compile(fn, { device, inputs: shapes, seed: 3, ...leaves });
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

interface Setup {
  readonly model?: AnyLayer & ((x: Tensor) => Tensor);
  readonly shapes?: { readonly x: number[]; readonly y: number[] };
  readonly loss?: Loss;
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
    ['a crop inside parts, whose bins are gathered', { crop: 10 }, 4],
    ['a crop inside parts that hold all they need', { crop: 10 }, 2],
    ['at the end alone, which the last part lacks rows for', { crop: 0, cropEnd: 20 }, 2],
    ['at the front alone, which the first part lacks rows for', { crop: 20, cropEnd: 0 }, 2],
    ['with margins of what is left', { deep: true, drop: 0.4, crop: 10 }, 2],
    ['dropout draws the same words', { drop: 0.4 }, 4],
    ['margins of a normalised, dropped and added branch', { deep: true, drop: 0.4 }, 4],
    ['of more parts than hold bins', { deep: true, drop: 0.4 }, 8],
    ['wider than a part', { deep: true, drop: 0.4, dilation: 13 }, 8],
    ['of all bins', { deep: true, drop: 0.4, crop: 0 }, 6],
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

  test.each([4, 8])(
    'a loss of shares of the total, with one of the total: Borzoi in %s parts',
    async (parts) => {
      const setup = { loss: (p: Tensor, y: Tensor) => poissonMultinomialLoss(p, y, { totalWeight: 0.2 }) };
      const whole = await trained(setup, { leaves: SEQUENCES });
      const cut = await trained(setup, { leavesPerSequence: parts }, { poison: true });
      expect(cut.losses[1]! / whole.losses[1]!).toBeCloseTo(1, 5);
      expect(largestDifference(whole.state, cut.state)).toBeLessThan(3e-6);
    },
  );

  test.each([2, 8])(
    'attention pools and layer norm cut into %s parts, and a softmax over all rows',
    async (parts) => {
      const model = (): AnyLayer & ((x: Tensor) => Tensor) => {
        const own = {
          stem: conv1d({ inputs: 4, outputs: 8, size: 5 }),
          pool: attentionPool({ channels: 8, pool: 2 }),
          norm: layerNorm({ channels: 8 }),
          shared: attentionPool({ channels: 8, pool: 3, perChannel: false }),
          head: linear({ inputs: 8, outputs: 3 }),
        };
        return layer(own, (x: Tensor) => {
          const pooled = own.shared(own.norm(own.pool(own.stem(x)))); // [batch, 64, 8]
          return own.head(add(pooled, softmax(pooled, { axis: 1 })));
        });
      };
      const shapes = { x: [SEQUENCES, LENGTH, 4], y: [SEQUENCES, LENGTH / 6, 3] };
      const whole = await trained({ model: model(), shapes }, { leaves: SEQUENCES });
      const cut = await trained({ model: model(), shapes }, { leavesPerSequence: parts });
      expect(cut.losses[1]).toBeCloseTo(whole.losses[1]!, 5);
      expect(largestDifference(whole.state, cut.state)).toBeLessThan(3e-6);
    },
  );

  test.each([2, 8])('attention cut into %s parts: all keys, and sums for own keys alone', async (parts) => {
    const [bins, heads, keySize, valueSize] = [48, 2, 4, 6];
    const model = (): AnyLayer & ((x: Tensor) => Tensor) => {
      const options = { inputs: 8, outputs: 8, length: bins, heads, keySize, valueSize, features: 12 };
      const own = {
        stem: conv1d({ inputs: 4, outputs: 8, size: 9, stride: 8 }),
        attend: multiHeadAttention(options),
        again: multiHeadAttention(options),
        head: linear({ inputs: 8, outputs: 3 }),
      };
      return layer(own, (x: Tensor) => {
        const stem = own.stem(x);
        const first = add(stem, own.attend(stem));
        return own.head(add(first, own.again(first)));
      });
    };
    const shapes = { x: [SEQUENCES, LENGTH, 4], y: [SEQUENCES, bins, 3] };
    const setup = (): Setup => ({ model: model(), shapes });
    const whole = await trained(setup(), { leaves: SEQUENCES }, { steps: 3 }); // attention gives zeros in the first
    const cut = await trained(setup(), { leavesPerSequence: parts }, { steps: 3 });
    expect(cut.losses[2]).toBeCloseTo(whole.losses[2]!, 5);
    expect(largestDifference(whole.state, cut.state)).toBeLessThan(3e-6);
    const step = trainStep({ model: model(), loss: mseLoss, optimizer: sgd({ learningRate: 0.1 }) });
    const { program } = build(step, { inputs: shapes, leavesPerSequence: parts });
    const gathered = program.segments.flatMap(({ combine }) => combine);
    const bytesOf = (addressed: boolean): number[] =>
      gathered
        .filter((one) => (one.addressed === true) === addressed)
        .map(({ bytesPerLeaf }) => bytesPerLeaf * parts);
    const [keys, values] = [4 * bins * heads * keySize, 4 * bins * heads * valueSize];
    expect(bytesOf(false)).toEqual([keys, values, keys, values]); // once, however they are ordered for products
    const sums = [values * parts, keys * parts];
    expect(bytesOf(true)).toEqual([...sums, ...sums]);
  });

  test.each([2, 4, 6])('a map cut into %s parts by rows, and its transpose', async (parts) => {
    const shapes = { x: [SEQUENCES, LENGTH, 4], y: [SEQUENCES, trianglePairs(20, { offset: 2 }), 2] };
    const whole = await trained({ model: mapNetwork(), shapes }, { leaves: SEQUENCES });
    const cut = await trained({ model: mapNetwork(), shapes }, { leavesPerSequence: parts });
    expect(cut.losses[1]).toBeCloseTo(whole.losses[1]!, 5);
    expect(largestDifference(whole.state, cut.state)).toBeLessThan(3e-6);
  });

  test('of a map, parts exchange margins, and tiles of its transposes; batch norm gathers no pixels', () => {
    const map = 4 * 24 * 24 * 5; // bytes
    const fn = trainStep({ model: mapNetwork(), loss: mseLoss, optimizer: sgd({ learningRate: 0.1 }) });
    const shapes = { x: [1, LENGTH, 4], y: [1, trianglePairs(20, { offset: 2 }), 2] };
    const { program } = build(fn, { inputs: shapes, leavesPerSequence: 2 });
    const gathered = program.segments.flatMap(({ combine }) => combine);
    const bytesOf = (addressed: boolean): number[] =>
      gathered
        .filter((one) => (one.addressed === true) === addressed)
        .map(({ bytesPerLeaf, parts: [from, to] }) => bytesPerLeaf * (to - from));
    const bins = 2 * 4 * 24 * 6; // what each part adds to the gradient of all bins
    expect(bytesOf(true)).toEqual([map, map, map, bins]); // back, the last needs none: all parts have the pairs
    const cropped = 4 * 20 * 20 * 5;
    expect(bytesOf(false).filter((bytes) => bytes >= cropped)).toEqual([cropped]); // for the pairs of the triangle
  });

  test('margins of what is normalised travel with its statistics: parts meet once for both', () => {
    const options = { deep: true, drop: 0.4, crop: 0 };
    const { program } = build(training(options), { inputs: inputs(0), leavesPerSequence: 4 });
    const meetings = program.segments.filter(({ combine }) => combine.length > 0);
    const norms = 3;
    expect(meetings).toHaveLength(2 * norms + 1); // forward and backward; and margins of the loss's gradient
    const once = program.segments.flatMap((segment) => segment.once.map(({ label }) => label));
    expect(once).toContain('towerNorm: batchNormalizeGradient [4, 3, 8]'); // of all parts, 2 rows before and 1 after
  });

  test('a part needs the rows of as many parts as its margins reach over', () => {
    const reachOf = (dilation: number): (number | undefined)[] => {
      const { program } = build(training({ dilation }), { inputs: inputs(), leavesPerSequence: 8 });
      return program.segments.flatMap(({ combine }) => combine.map(({ reach }) => reach));
    };
    const [near, far] = [reachOf(3), reachOf(29)]; // 12 bins a part; others gather statistics, or edges with these
    expect(near.filter((reach) => reach !== undefined)).toEqual([1]);
    expect(far.filter((reach) => reach !== undefined)).toEqual([3]);
  });

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

  test('after a crop inside parts, each multiplies as many rows of the head', () => {
    const shapes = { inputs: inputs(10), leavesPerSequence: 4 };
    const { segments, update } = build(training({ crop: 10 }), shapes).program;
    const products = (list: 'once' | 'leaf'): string[] =>
      segments
        .slice(0, update)
        .flatMap((segment) => segment[list].map(({ label }) => label))
        .filter((label) => label.includes('matmul'));
    expect(products('leaf')).toContainEqual(expect.stringContaining('matmul [1, 19, 3]'));
    expect(products('once')).toEqual([]);
  });

  test.each([
    [10, 2, false],
    [10, 4, true],
    [24, 2, false],
    [24, 3, true],
    [32, 3, false],
  ])('of %i bins cropped at each end, in %i parts, all bins are gathered: %s', (crop, parts, gathered) => {
    const { segments } = build(training({ crop }), {
      inputs: inputs(crop),
      leavesPerSequence: parts,
    }).program;
    const bytes = segments.flatMap(({ combine }) => combine).map(({ bytesPerLeaf }) => bytesPerLeaf);
    for (const bins of [BINS, BINS - 2 * crop]) expect(bytes.includes((4 * 8 * bins) / parts)).toBe(gathered);
  });

  test('what does not fit says so', () => {
    const refuse = (options: Options, parts: number, message: RegExp): void =>
      expect(() =>
        build(training(options), { inputs: inputs(options.crop), leavesPerSequence: parts }),
      ).toThrow(message);
    refuse({}, 64, /parts of 3 rows, the first of which begins at row 0, would give 1.5 rows/);
    refuse({}, 7, /cannot be cut into 7 parts: .*: 384 rows do not divide by 7; use another number of parts/);
  });

  test('a convolution without padding would end inside a part: refused, with both sizes', () => {
    const model = sequential({
      same: conv1d({ inputs: 4, outputs: 4, size: 3 }),
      valid: conv1d({ inputs: 4, outputs: 2, size: 7, padding: 'valid' }),
    });
    const fn = trainStep({ model, loss: mseLoss, optimizer: sgd({ learningRate: 0.1 }) });
    const shapes = { x: [1, 96, 4], y: [1, 90, 2] };
    expect(() => build(fn, { inputs: shapes, leavesPerSequence: 4 })).toThrow(
      /90 rows do not fill whole parts of 24 rows, the first of which begins at row 0/,
    );
  });

  test('a pool whose windows reach beyond the ends is refused: zeros there are no padding', () => {
    const model = sequential({
      conv: conv1d({ inputs: 4, outputs: 4, size: 3 }),
      pool: maxPool({ size: 3, stride: 1, padding: 'same' }),
    });
    const fn = trainStep({ model, loss: mseLoss, optimizer: sgd({ learningRate: 0.1 }) });
    const shapes = { x: [1, 96, 4], y: [1, 96, 4] };
    expect(() => build(fn, { inputs: shapes, leavesPerSequence: 4 })).toThrow(
      /its windows reach beyond the ends of a sequence of 96 rows/,
    );
  });

  test('pools of 128 rows and of 9 are cut between windows, forward and backward', () => {
    for (const size of [128, 9]) {
      const model = sequential({
        conv: conv1d({ inputs: 4, outputs: 4, size: 3 }),
        pool: maxPool({ size }),
        deep: conv1d({ inputs: 4, outputs: 2, size: 3 }),
      });
      const fn = trainStep({ model, loss: mseLoss, optimizer: sgd({ learningRate: 0.1 }) });
      const shapes = { x: [1, 8 * size, 4], y: [1, 8, 2] };
      const { program } = build(fn, { inputs: shapes, leavesPerSequence: 4 });
      expect(rounds(program).leaves).toBe(4);
    }
  });
});
