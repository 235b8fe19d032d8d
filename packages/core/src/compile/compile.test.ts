import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Device } from '../device.ts';
import { gradients } from '../grad.ts';
import { decide, FIRST_Q } from '../gradient-scale.ts';
import { memoryReport, programBytes } from '../memory-report.ts';
import * as nn from '../nn/index.ts';
import { NotFiniteError } from '../not-finite.ts';
import { add, divide, multiply, subtract } from '../ops/arithmetic.ts';
import { geluSigmoid, log } from '../ops/elementwise.ts';
import { leafSum } from '../ops/leaf-sum.ts';
import { sum } from '../ops/reduce.ts';
import { adam } from '../optim/index.ts';
import { constant, ones, parameter, scalar } from '../parameter.ts';
import type { Program, Step } from '../program.ts';
import type { Tensor } from '../tensor.ts';
import { assign } from '../trace.ts';
import { trainStep } from '../train-step.ts';
import { build, compile, type Traceable } from './compile.ts';
import { assignSlots, type Live } from './memory.ts';

const model = (): nn.Layer =>
  nn.sequential({
    conv: nn.conv1d({ inputs: 4, outputs: 8, size: 7, padding: 'same', bias: false }),
    norm: nn.batchNorm({ channels: 8 }),
    activation: geluSigmoid,
    pool: nn.maxPool({ size: 4 }),
    head: nn.linear({ inputs: 8, outputs: 3 }),
    rate: nn.softplus,
  });
const INPUTS = { x: [4, 32, 4], y: [4, 8, 3] };
const training = (group: 'sequence' | 'step' = 'sequence'): Traceable =>
  trainStep({
    model: model(),
    loss: nn.poissonLoss,
    optimizer: adam({ learningRate: 0.01 }),
    batchNorm: { group, sequences: 1 },
  });
const steps = (program: Program): Step[] => program.segments.flatMap(({ once, leaf }) => [...once, ...leaf]);

describe('a program', () => {
  test('is plain data that survives cloning to a worker', () => {
    const { program } = build(training(), { inputs: INPUTS, leaves: 4 });
    expect(structuredClone(program)).toEqual(program);
  });

  test('has the same bitsId at every compilation, and another one for another plan', () => {
    const id = (leaves: number, group: 'sequence' | 'step'): string =>
      build(training(group), { inputs: INPUTS, leaves }).program.bitsId;
    expect(id(4, 'sequence')).toBe(id(4, 'sequence'));
    const gpu = build(training(), { inputs: INPUTS, leaves: 4, target: { kind: 'gpu' } }).program.bitsId;
    expect(new Set([id(4, 'sequence'), id(2, 'sequence'), id(4, 'step'), gpu]).size).toBe(4);
  });

  test('never binds one buffer for reading and writing in a dispatch', () => {
    for (const group of ['sequence', 'step'] as const) {
      const { program } = build(training(group), { inputs: INPUTS, leaves: 2 });
      for (const { bindings, label } of steps(program)) {
        const written = bindings.filter(({ access }) => access === 'read_write').map(({ slot }) => slot);
        const read = bindings.filter(({ access }) => access === 'read').map(({ slot }) => slot);
        expect(
          read.filter((slot) => written.includes(slot)),
          label,
        ).toEqual([]);
      }
    }
  });

  test('exchanges once a step when sequences are normalised alone, and at every norm otherwise', () => {
    const exchanges = (group: 'sequence' | 'step'): number =>
      build(training(group), { inputs: INPUTS, leaves: 4 }).program.segments.filter(
        ({ combine }) => combine.length > 0,
      ).length;
    expect(exchanges('sequence')).toBe(1);
    expect(exchanges('step')).toBe(2); // one norm: forward and backward
  });

  test('prints its memory before anything is allocated', () => {
    const { program } = build(training(), { inputs: INPUTS, leaves: 4 });
    expect(memoryReport(program)).toMatch(/slots, peak .* with 4 of 4 leaves/);
    expect(programBytes(program, 1).leaf * 4).toBe(programBytes(program, 4).leaf);
  });
});

describe('fusion', () => {
  const labels = (fn: Traceable, inputs: Record<string, readonly number[]>): string[] =>
    steps(build(fn, { inputs }).program).map(({ label }) => label);

  test('a chain of maps is one kernel', () => {
    expect(labels(({ x }) => ({ y: multiply(add(x!, 1), subtract(x!, 2)) }), { x: [4, 5] })).toHaveLength(1);
  });

  test('what follows a convolution element by element is its epilogue', () => {
    const conv = nn.conv1d({ inputs: 4, outputs: 8, size: 3, padding: 'same' });
    nn.parameters(conv);
    expect(labels(({ x }) => ({ y: geluSigmoid(conv(x!)) }), { x: [1, 16, 4] })).toHaveLength(1);
  });

  test('a transcendental value with two readers is computed once', () => {
    const fn: Traceable = ({ x }) => {
      const g = geluSigmoid(x!);
      return { a: add(g, 1), b: sum(g) };
    };
    expect(labels(fn, { x: [4, 5] })).toHaveLength(3);
  });

  test('kernels that differ only in sizes share one text', () => {
    const fn: Traceable = ({ x, z }) => ({ a: geluSigmoid(x!), b: geluSigmoid(z!) });
    const { program } = build(fn, { inputs: { x: [8, 64], z: [8, 256] } });
    expect(steps(program)).toHaveLength(2);
    expect(program.shaders).toHaveLength(1);
  });
});

describe('splitting into leaves', () => {
  const refuse = (fn: Traceable, message: RegExp, leaves = 2): void =>
    expect(() => build(fn, { inputs: { x: [4, 3] }, leaves })).toThrow(message);

  test('refuses a batch that does not divide', () => {
    refuse(({ x }) => ({ y: x! }), /a batch of 4 does not divide into 3 leaves/, 3);
  });

  test('refuses to use an unfinished sum as if it were whole', () => {
    refuse(({ x }) => ({ y: log(sum(x!)) }), /uses a sum over sequences .* before the leaves are added up/);
    refuse(({ x }) => ({ y: add(sum(x!), 1) }), /uses a sum over sequences/);
    refuse(({ x }) => ({ y: multiply(sum(x!), sum(x!)) }), /uses a sum over sequences/);
    refuse(({ x }) => ({ y: divide(constant(1), sum(x!)) }), /uses a sum over sequences/);
  });

  test('refuses a gradient that no sequence contributes to', () => {
    const weight = parameter([3], { name: 'w', init: ones });
    refuse(({ x }) => {
      const loss = sum(multiply(weight, weight));
      const [g] = gradients(loss, constant(1), [weight]);
      assign(weight, leafSum(g!, 'w'));
      return { loss: sum(x!) };
    }, /depends on no input/);
  });

  test('names the layer and both sizes when shapes do not fit', () => {
    const wrong = nn.sequential({
      stem: nn.sequential({ conv: nn.conv1d({ inputs: 5, outputs: 2, size: 3, padding: 'same' }) }),
    });
    expect(() => build(({ x }) => ({ y: wrong(x!) }), { inputs: { x: [1, 9, 4] } })).toThrow(
      /in stem\.conv: conv1d: .*4.*5/,
    );
  });
});

test('no two live pieces of storage overlap, and slots are reused', () => {
  const piece = fc.record({
    bytes: fc.constantFrom(4, 64, 256, 1024, 5000),
    first: fc.nat(40),
    length: fc.nat(10),
    leaf: fc.boolean(),
    alone: fc.boolean(),
  });
  const live = (bytes: number, first: number, last: number): Live => ({
    ...{ bytes, first, last, scope: 'scratch', label: '', alone: false, apart: new Set() },
  });
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 40 }), fc.array(fc.nat(39)), (drawn, apart) => {
      const pieces = drawn.map(({ bytes, first, length, leaf, alone }): Live => {
        return { ...live(bytes, first, first + length), scope: leaf ? 'leaf' : 'scratch', alone };
      });
      const separate = pieces.filter((_, i) => apart.includes(i));
      for (const one of separate) for (const other of separate) if (one !== other) one.apart.add(other);
      const { slots, places } = assignSlots(pieces);
      for (const [i, a] of pieces.entries()) {
        const { slot, offset } = places[i]!;
        expect(slots[slot]!.bytes).toBeGreaterThanOrEqual(offset + a.bytes);
        expect(slots[slot]!.scope).toBe(a.scope);
        expect(offset % 256).toBe(0);
        for (const [j, b] of pieces.entries()) {
          if (i === j || places[j]!.slot !== slot || a.last < b.first || b.last < a.first) continue;
          const other = places[j]!.offset;
          expect(offset + a.bytes <= other || other + b.bytes <= offset).toBe(true);
          expect(a.alone || b.alone || a.apart.has(b)).toBe(false);
        }
      }
    }),
  );
  expect(assignSlots([0, 1, 2, 3, 4].map((first) => live(8, first, first + 1))).slots).toHaveLength(2);
  const halves = assignSlots([live(1024, 0, 1), live(512, 2, 3), live(512, 3, 4)]);
  expect(halves.places.map(({ offset }) => offset)).toEqual([0, 0, 512]);
});

describe('gradient scales', () => {
  const sums = { slot: 0, peakSlot: 0, scaleSlot: 0, tensors: [{ name: 'w', offset: 0, count: 1 }] };
  const bits = (value: number): Uint32Array => new Uint32Array(Float32Array.of(value).buffer);
  test.each([
    [2 ** -20, 'commit'],
    [2 ** 8 * 0.999, 'commit'],
    [2 ** 8, 'repeat'],
    [2 ** -21, 'repeat'],
    [0, 'commit'],
    [Number.POSITIVE_INFINITY, 'not-finite'],
    [Number.NaN, 'not-finite'],
  ] as const)('at the first step a largest leaf of %d means %s', (value, kind) => {
    expect(decide(sums, bits(value), Int32Array.of(FIRST_Q)).kind).toBe(kind);
  });

  test('the next unit lies 40 binary digits below the largest leaf', () => {
    expect(decide(sums, bits(5), Int32Array.of(FIRST_Q))).toEqual({
      kind: 'commit',
      q: Int32Array.of(2 - 40),
    });
  });
});

describe('on a device', () => {
  let device: Device;
  beforeAll(async () => {
    device = await Device.open();
  });
  afterAll(async () => {
    await device.close();
  });
  const batch = (k = 0): { x: Float32Array; y: Float32Array } => ({
    x: Float32Array.from({ length: 512 }, (_, i) => Math.sin(i * 1.7 + k)),
    y: Float32Array.from({ length: 96 }, (_, i) => Math.abs(Math.cos(i * 2.3 + k))),
  });

  test('two runs from one seed have equal bits; the loss falls', async () => {
    const losses: number[][] = [];
    for (let run = 0; run < 2; run++) {
      const step = await compile(training(), { device, inputs: INPUTS, leaves: 4, seed: 3 });
      const own: number[] = [];
      for (let i = 0; i < 12; i++) own.push((await step(batch())).loss!.data[0] as number);
      losses.push(own);
      step.close();
    }
    expect(losses[0]).toEqual(losses[1]);
    expect(losses[0]!.at(-1)).toBeLessThan(losses[0]![0]! * 0.9);
  });

  test('leaves change the loss and the gradients only within f32 rounding', async () => {
    const after = async (leaves: number): Promise<Float64Array> => {
      const step = await compile(training('step'), { device, inputs: INPUTS, leaves, seed: 3 });
      for (let i = 0; i < 3; i++) await step(batch(i));
      const { data } = (await step.state.read()).get('conv.weight')!;
      step.close();
      return Float64Array.from(data as Float32Array);
    };
    const [one, four] = [await after(1), await after(4)];
    const largest = Math.max(...one.map(Math.abs));
    expect(Math.max(...one.map((w, i) => Math.abs(w - four[i]!)))).toBeLessThan(2e-5 * largest); // 3 Adam steps of 0.01
  });

  test('kernels for another kind of device change the weights only within f32 rounding', async () => {
    const after = async (kind: 'software' | 'gpu'): Promise<Float32Array> => {
      const step = await compile(training(), {
        device,
        inputs: INPUTS,
        leaves: 2,
        seed: 3,
        target: { kind },
      });
      for (let i = 0; i < 3; i++) await step(batch(i));
      const { data } = (await step.state.read()).get('conv.weight')!;
      step.close();
      return data as Float32Array;
    };
    const [software, gpu] = [await after('software'), await after('gpu')];
    const largest = Math.max(...software.map(Math.abs));
    expect(Math.max(...software.map((w, i) => Math.abs(w - gpu[i]!)))).toBeLessThan(2e-5 * largest);
  });

  test('a NaN anywhere stops the step, names the tensor, and leaves the state as it was', async () => {
    const step = await compile(training(), { device, inputs: INPUTS, leaves: 4, seed: 3 });
    await step(batch());
    const before = await step.state.read();
    const { x, y } = batch();
    y[50] = Number.NaN;
    const failure = await step({ x, y }).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(NotFiniteError);
    expect((failure as Error).message).toMatch(/step 1: .*sequence 6, leaf 2.*Nothing was updated/);
    expect(await step.state.read()).toEqual(before);
    step.close();
  });

  test('poisoned scratch memory changes nothing: no kernel reads what was not written', async () => {
    const hashes: string[] = [];
    for (const poison of [false, true]) {
      const step = await compile(training('step'), { device, inputs: INPUTS, leaves: 4, seed: 3 });
      for (let i = 0; i < 3; i++) {
        if (poison) step.executor.poison();
        await step(batch(i));
      }
      hashes.push(
        JSON.stringify(
          [...(await step.state.read()).values()].map(({ data }) => [...(data as Float32Array)]),
        ),
      );
      step.close();
    }
    expect(hashes[0]).toBe(hashes[1]);
  });

  test('per-step scalars are passed, not baked in', async () => {
    const fn: Traceable = Object.assign(
      ({ x }: Readonly<Record<string, Tensor>>) => ({ y: multiply(x!, scalar('rate')) }),
      {
        counters: {
          counters: () => ({ n: 1 }),
          advance: ({ n }: Readonly<Record<string, number>>) => ({ n: n! + 1 }),
          scalars: ({ n }: Readonly<Record<string, number>>) => ({ rate: n! }),
        },
      },
    );
    const f = await compile(fn, { device, inputs: { x: [2] } });
    expect([...(await f({ x: Float32Array.of(3, 4) })).y!.data]).toEqual([3, 4]);
    expect([...(await f({ x: Float32Array.of(3, 4) })).y!.data]).toEqual([6, 8]);
    f.close();
  });

  test('memory is given back when functions close', async () => {
    const before = device.allocatedBytes;
    const step = await compile(training(), { device, inputs: INPUTS, leaves: 4 });
    expect(device.allocatedBytes).toBeGreaterThan(before);
    step.close();
    step.state.close();
    expect(device.allocatedBytes).toBe(before);
  });

  test('an error of the GPU fails the step and names what it happened to', async () => {
    const step = await compile(training(), { device, inputs: INPUTS, leaves: 4 });
    await step(batch());
    step.state.buffer('conv.weight').destroy(); // which only the GPU notices
    await expect(step(batch())).rejects.toThrow(/GPU error while submitting: .*conv\.weight.*destroyed/s);
    step.close();
  });

  test('inputs that do not fit are refused with both sides', async () => {
    const step = await compile(training(), { device, inputs: INPUTS, leaves: 4 });
    await expect(step({ x: batch().x })).rejects.toThrow(/input y is missing; the program needs x, y/);
    await expect(step({ ...batch(), y: new Float32Array(5) })).rejects.toThrow(
      /input y: 5 values for shape \[4, 8, 3\], which holds 96/,
    );
    step.close();
  });
});
