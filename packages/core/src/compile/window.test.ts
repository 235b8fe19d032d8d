/** Tensors larger than one binding: the same bits from windows and pages as from whole tensors. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Device } from '../device.ts';
import { gradients } from '../grad.ts';
import type { HostTensor } from '../host-tensor.ts';
import * as nn from '../nn/index.ts';
import { add, multiply, subtract } from '../ops/arithmetic.ts';
import { conv1d } from '../ops/conv1d.ts';
import { conv2d } from '../ops/conv2d.ts';
import { geluSigmoid, square } from '../ops/elementwise.ts';
import { matmul } from '../ops/matmul.ts';
import { repeat, sum } from '../ops/reduce.ts';
import { pad, slice } from '../ops/shape.ts';
import { adam } from '../optim/index.ts';
import { constant, ones, type Parameter, parameter } from '../parameter.ts';
import type { Program, Step } from '../program.ts';
import type { Tensor } from '../tensor.ts';
import { randomTensor } from '../testing/values.ts';
import { runAt, windowCount } from '../testing/windows.ts';
import { trainStep } from '../train-step.ts';
import { build, compile, type Traceable } from './compile.ts';
import { rangeOf } from './interval.ts';
import { WindowWord } from './window.ts';

const LIMIT = 16_384; // bytes
let device: Device;
beforeAll(async () => {
  device = await Device.open();
});
afterAll(async () => {
  await device.close();
});

const steps = (program: Program): Step[] => program.segments.flatMap(({ once, leaf }) => [...once, ...leaf]);

/** The most bindings of any dispatch beyond one for each tensor. */
function furtherPages(program: Program): number {
  return Math.max(...steps(program).map(({ window }) => (window?.pages ?? 1) - 1));
}

/** Whether a window goes on from sums that others left. */
function continues(window: Step['window']): boolean {
  return ((window?.constants[WindowWord.progress] ?? 0) & 1) !== 0;
}

/** Runs a function whole and in windows; gives the program of the windows. */
async function expectSame(fn: () => Traceable, shape: readonly number[], limit = LIMIT): Promise<Program> {
  const x = randomTensor(shape, { seed: 5 });
  const whole = await runAt(device, fn(), undefined, { x });
  const parts = await runAt(device, fn(), limit, { x });
  expect(windowCount(whole.program)).toBe(0);
  expect(windowCount(parts.program)).toBeGreaterThan(2);
  expect(parts.program.bitsId).toBe(whole.program.bitsId);
  for (const [name, values] of Object.entries(whole.outputs))
    expect(Buffer.from(parts.outputs[name]!.buffer).equals(Buffer.from(values.buffer)), name).toBe(true);
  return parts.program;
}

describe('on tensors larger than one binding', () => {
  const channels = (values: number): Tensor =>
    parameter([13], { name: `channels${values}`, init: normal(values) });
  const normal =
    (seed: number) =>
    (shape: readonly number[]): Float32Array =>
      randomTensor(shape, { seed }).data as Float32Array;

  test('maps and views have the same bits', async () => {
    await expectSame(() => {
      const [scale, shift] = [channels(1), channels(2)];
      return ({ x }) => {
        const y = geluSigmoid(add(multiply(x!, scale), shift));
        return { y, rows: pad(slice(y, { from: 3, to: 600 }), { before: 2, after: 5 }) };
      };
    }, [2, 701, 13]);
  });

  test('reductions over any axes have the same bits, with what is fused before and after them', async () => {
    await expectSame(
      () =>
        ({ x }) => {
          const centred = subtract(x!, 0.3);
          const far = sum(multiply(centred, x!), { from: 1, to: 2 }); // [batch, channels]
          const near = geluSigmoid(sum(x!, { from: 2, to: 3 })); // [batch, rows]
          const all = sum(x!, { from: 1, to: 3 }); // [batch]
          return { far, near, all, back: repeat(far, x!, { from: 1, to: 2 }) };
        },
      [2, 1409, 12],
    );
  });

  test('sums of products over more than one binding are continued, and have the same bits', async () => {
    const program = await expectSame(() => {
      const weight = parameter([5, 28, 33], { name: 'weight', init: normal(3) });
      return ({ x }) => {
        const y = conv1d(x!, weight);
        const [slope] = gradients(sum(square(y)), constant(1), [weight]);
        return { slope: slope!, square: geluSigmoid(matmul(x!, x!, { transposeA: true })) };
      };
    }, [1, 2048, 28]);
    for (const name of ['conv1dWeightGradient', 'matmul'])
      expect(
        steps(program).filter(({ label, window }) => label.startsWith(name) && continues(window)).length,
        name,
      ).toBeGreaterThan(5);
  });

  describe('products for GPUs have the same bits, in windows of one page each:', () => {
    const held = (shape: readonly number[], name: string): Parameter =>
      parameter(shape, { name, init: normal(name.length) });
    const expectSameOnGpu = async (
      fn: () => Traceable,
      shape: readonly number[],
      limit: number,
    ): Promise<void> => {
      const found: Record<string, HostTensor>[] = [];
      for (const bindingLimit of [1 << 20, limit]) {
        const run = await compile(fn(), {
          device,
          inputs: { x: shape },
          target: { kind: 'gpu' },
          bindingLimit,
        });
        expect(windowCount(run.program) > 20).toBe(bindingLimit === limit);
        expect(furtherPages(run.program)).toBe(0);
        found.push(await run({ x: randomTensor(shape, { seed: 5 }) }));
        run.close();
        run.state.close();
      }
      expect(found[1]).toEqual(found[0]);
    };

    test('convolutions of sequences and matrices', () =>
      expectSameOnGpu(
        () => {
          const weights = [held([8], 'a'), held([4, 8, 12], 'bb'), held([12, 5], 'ccc')] as const;
          return ({ x }) => {
            const scaled = geluSigmoid(multiply(x!, weights[0]));
            const y = matmul(conv1d(scaled, weights[1], { stride: 2, dilation: 3 }), weights[2]);
            const [da, db, dc] = gradients(y, y, weights);
            return { y, da: da!, db: db!, dc: dc! };
          };
        },
        [2, 701, 8],
        12_288,
      ));

    test('convolutions of maps', () =>
      expectSameOnGpu(
        () => {
          const weights = [held([8], 'a'), held([3, 2, 8, 4], 'bb')] as const;
          return ({ x }) => {
            const y = conv2d(geluSigmoid(multiply(x!, weights[0])), weights[1], { dilation: 2 });
            const [da, db] = gradients(y, y, weights);
            return { y, da: da!, db: db! };
          };
        },
        [2, 41, 19, 8],
        12_288,
      ));
  });

  test('sums that fit into one binding stand beside sums that are continued', async () => {
    const convolved = (): Traceable => {
      const weight = parameter([5, 64, 4], { name: 'weight', init: normal(3) });
      return ({ x }) => ({ slope: gradients(sum(square(conv1d(x!, weight))), constant(1), [weight])[0]! });
    };
    const multiplied = (): Traceable => {
      const weight = parameter([64, 4], { name: 'weight', init: normal(3) });
      return ({ x }) => ({ slope: gradients(sum(square(matmul(x!, weight))), constant(1), [weight])[0]! });
    };
    // 10 chunks of 100 rows of 256 bytes: the first and the last reach 102 rows of x, the others 104
    const convolution = await expectSame(convolved, [1, 1000, 64], 103 * 256);
    // 15 chunks of 63 rows and one of 55
    const product = await expectSame(multiplied, [1, 1000, 64], 60 * 256);
    for (const [program, name, chunks] of [
      [convolution, 'conv1dWeightGradient', 10],
      [product, 'matmulPartials', 16],
    ] as const) {
      const parts = steps(program).filter(({ label }) => label.startsWith(name));
      expect(
        parts.some(({ window }) => continues(window)),
        name,
      ).toBe(true);
      expect(parts.length, name).toBeLessThan(2 * chunks);
    }
  });

  test('a sum whose addends are each larger than one binding has the same bits', async () => {
    const partials = randomTensor([3, 2100, 4], { seed: 7 }).data as Float32Array;
    await expectSame(() => {
      const held = parameter([3, 2100, 4], { name: 'partials', init: () => partials });
      return ({ x }) => ({ y: add(x!, geluSigmoid(sum(held, { from: 0, to: 1 }))) });
    }, [1, 2100, 4]);
  });
});

test('training steps have the same bits in windows: convolution, batch norm, pools, products, optimizer', async () => {
  const model = (): nn.Layer =>
    nn.sequential({
      conv: nn.conv1d({ inputs: 4, outputs: 24, size: 15, padding: 'same', bias: false }),
      norm: nn.batchNorm({ channels: 24 }),
      activation: geluSigmoid,
      pool: nn.maxPool({ size: 2 }),
      dilated: nn.conv1d({ inputs: 24, outputs: 40, size: 5, dilation: 3, padding: 'same' }),
      strided: nn.conv1d({ inputs: 40, outputs: 40, size: 3, stride: 2, padding: 'same' }),
      overlapping: nn.maxPool({ size: 3, stride: 2, padding: 'same' }),
      head: nn.linear({ inputs: 40, outputs: 53 }),
      rate: nn.softplus,
    });
  const shapes = { x: [4, 1024, 4], y: [4, 128, 53] } as const;
  const batch = {
    x: randomTensor(shapes.x, { seed: 8 }).data,
    y: randomTensor(shapes.y, { seed: 9, range: [0, 3] }).data,
  };
  const train = async (limit: { bindingLimit?: number }): Promise<[Program, Map<string, HostTensor>]> => {
    const fn = trainStep({
      model: model(),
      loss: nn.poissonLoss,
      optimizer: adam({ learningRate: 0.01 }),
      batchNorm: { group: 'step', sequences: 2 },
    });
    const step = await compile(fn, { device, inputs: shapes, leaves: 2, seed: 3, ...limit });
    for (let i = 0; i < 2; i++) await step(batch);
    const state = await step.state.read();
    step.close();
    step.state.close();
    return [step.program, state];
  };
  const [, whole] = await train({});
  const [program, state] = await train({ bindingLimit: LIMIT });
  expect(windowCount(program)).toBeGreaterThan(50);
  expect(furtherPages(program)).toBeGreaterThan(0);
  for (const [name, { data }] of whole) expect(state.get(name)!.data, name).toEqual(data);
});

test('what cannot be bound is refused, with sizes and what to do', () => {
  const weight = parameter([5, 28, 33], { name: 'weight', init: ones }); // 18 KiB, which every output needs
  const fn: Traceable = ({ x }) => ({ y: conv1d(x!, weight) });
  expect(() => build(fn, { inputs: { x: [1, 80, 28] }, bindingLimit: 1024 })).toThrow(
    /conv1d.* needs \d+ bindings of at most .*but a kernel has 16 .*\[5, 28, 33\] 0\.01762 MiB in 19 pages.*use smaller leaves/,
  );
});

test('tensors of 2³² elements are refused', () => {
  const fn: Traceable = ({ x }) => ({ y: add(x!, 1) });
  expect(() => build(fn, { inputs: { x: [2, 2 ** 31] } })).toThrow(
    /4294967296 elements in one leaf.*use more leaves/,
  );
  expect(() => build(fn, { inputs: { x: [2, 2 ** 31] }, leaves: 2 })).not.toThrow();
});

test('the range of an index is never too small, and exact where rows are contiguous', () => {
  const known = new Map([['frame.k.x', 7]]);
  const texts: readonly (readonly [string, (i: number) => number])[] = [
    ['i', (i) => i],
    ['i / 21u * 33u + i % 21u + 6u', (i) => Math.floor(i / 21) * 33 + (i % 21) + 6],
    ['(i % frame.k.x + 2u)', (i) => (i % 7) + 2],
    [
      'u32(clamp(i32(i / 3u % 9u) - 2, 0, 4)) * 3u',
      (i) => Math.min(Math.max((Math.floor(i / 3) % 9) - 2, 0), 4) * 3,
    ],
    [
      'select(5u, 40u - i / 2u, i % 2u == 0u && i < 9u)',
      (i) => (i % 2 === 0 && i < 9 ? 40 - Math.floor(i / 2) : 5),
    ],
    ['i % 4u * 15u + i / 4u', (i) => (i % 4) * 15 + Math.floor(i / 4)],
  ];
  for (const [text, value] of texts) {
    for (let from = 0; from < 60; from += 7) {
      for (const to of [from + 1, from + 5, 60]) {
        const [low, high] = rangeOf(text, [from, to], known);
        const values = Array.from({ length: to - from }, (_, k) => value(from + k));
        expect(low, text).toBeLessThanOrEqual(Math.min(...values));
        expect(high, text).toBeGreaterThan(Math.max(...values));
        if (to === from + 1 && !text.startsWith('select'))
          expect([low, high], text).toEqual([values[0]!, values[0]! + 1]);
      }
    }
  }
  expect(rangeOf('unknown(i)', [0, 1], known)).toEqual([Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY]);
  expect(rangeOf('u32(i32(i) - 3)', [0, 9], known)[1]).toBe(Number.POSITIVE_INFINITY);
});
