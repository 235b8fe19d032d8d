import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { compile } from '../compile/compile.ts';
import { Device } from '../device.ts';
import type { HostTensor } from '../host-tensor.ts';
import { withScope } from '../scope.ts';
import type { Tensor } from '../tensor.ts';
import { relativeError } from '../testing.ts';
import { noise } from './golden.ts';
import { parameters } from './layer.ts';
import { type BatchNormGroup, type BatchNormOptions, batchNorm, withBatchNorm } from './norm.ts';

let device: Device;
beforeAll(async () => {
  device = await Device.open();
});
afterAll(() => device.close());

const SHAPE = [6, 11, 3];
const x = noise(SHAPE, 1, [1, 3]);

/** Mean and biased variance of channel c over sequences `[from, to)`. */
function statistics(c: number, from: number, to: number): { mean: number; variance: number } {
  const column = [...(x.data as Float32Array)].filter((_, i) => i % 3 === c && i >= from * 33 && i < to * 33);
  const mean = column.reduce((a, b) => a + b, 0) / column.length;
  return { mean, variance: column.reduce((a, b) => a + (b - mean) ** 2, 0) / column.length };
}

interface Run {
  readonly training?: boolean;
  readonly group?: BatchNormGroup;
  readonly leaves?: number;
  readonly steps?: number;
  readonly options?: Partial<BatchNormOptions>;
}

async function run({ training = true, group, leaves = 1, steps = 1, options }: Run) {
  const norm = batchNorm({ channels: 3, ...options });
  parameters(norm);
  const call = (x: Tensor): Tensor => (group === undefined ? norm(x) : withBatchNorm(group, () => norm(x)));
  const step = ({ x }: Readonly<Record<string, Tensor>>): Record<string, Tensor> => ({
    y: withScope({ training }, () => call(x!)),
  });
  const compiled = await compile(step, { device, inputs: { x: SHAPE }, leaves });
  let y: HostTensor | undefined;
  for (let i = 0; i < steps; i++) y = (await compiled({ x: x.data })).y;
  const state = await compiled.state.read(['running_mean', 'running_var']);
  compiled.close();
  return {
    y: y!.data as Float32Array,
    mean: state.get('running_mean')!.data as Float32Array,
    variance: state.get('running_var')!.data as Float32Array,
  };
}

const normalised = (sequencesPerGroup: number): Float64Array =>
  Float64Array.from(x.data as Float32Array, (value, i) => {
    const group = Math.floor(i / 33 / sequencesPerGroup);
    const { mean, variance } = statistics(i % 3, group * sequencesPerGroup, (group + 1) * sequencesPerGroup);
    return (value - mean) / Math.sqrt(variance + 1e-3);
  });

describe('training', () => {
  test.each([
    ['the whole step by default', undefined, 6],
    ['the whole step in parts of 2', { group: 'step', sequences: 2 }, 6],
    ['each sequence', { group: 'sequence', sequences: 1 }, 1],
    ['groups of 3 sequences', { group: 'sequence', sequences: 3 }, 3],
  ] as const)('normalises over %s', async (_, group, size) => {
    const { y } = await run(group === undefined ? {} : { group });
    expect(relativeError(y, normalised(size))).toBeLessThan(1e-5);
  });

  test('a debiased average is that of all batches so far, wherever it starts', async () => {
    const momentum = 0.75;
    const options = { momentum, average: 'debiased' } as const;
    const all = [0, 1, 2].map((c) => statistics(c, 0, 6));
    for (const steps of [1, 3]) {
      const { mean, variance } = await run({ steps, options }); // each batch the same
      expect(
        relativeError(
          mean,
          all.map((own) => own.mean),
        ),
      ).toBeLessThan(1e-6);
      expect(
        relativeError(
          variance,
          all.map((own) => own.variance),
        ),
      ).toBeLessThan(1e-5);
    }
  });

  test.each(['step', 'sequence'] as const)(
    'moves the running statistics by those of all sequences, group %s',
    async (group) => {
      const { mean, variance } = await run({ group: { group, sequences: 1 }, options: { momentum: 0.75 } });
      const all = [0, 1, 2].map((c) => statistics(c, 0, 6));
      expect(
        relativeError(
          mean,
          all.map((s) => 0.25 * s.mean),
        ),
      ).toBeLessThan(1e-5);
      expect(
        relativeError(
          variance,
          all.map((s) => 0.75 + 0.25 * s.variance),
        ),
      ).toBeLessThan(1e-5);
    },
  );

  test('an unbiased running variance counts all rows of the step but one', async () => {
    const group = { group: 'sequence', sequences: 2 } as const;
    const { variance } = await run({ group, options: { momentum: 0, variance: 'unbiased' } });
    const expected = [0, 1, 2].map((c) => (statistics(c, 0, 6).variance * 66) / 65);
    expect(relativeError(variance, expected)).toBeLessThan(1e-5);
  });

  test.each(['step', 'sequence'] as const)(
    'has the same bits on any number of leaves, group %s',
    async (group) => {
      const settings = { group: { group, sequences: 1 }, steps: 3 } as const;
      const whole = await run(settings);
      for (const leaves of [2, 6]) expect(await run({ ...settings, leaves })).toEqual(whole);
    },
  );

  test('one value a channel has no variance: an error says what to change', async () => {
    const norm = batchNorm({ channels: 3 });
    const step = ({ x }: Readonly<Record<string, Tensor>>): Record<string, Tensor> => ({
      y: withScope({ training: true }, () =>
        withBatchNorm({ group: 'sequence', sequences: 1 }, () => norm(x!)),
      ),
    });
    await expect(compile(step, { device, inputs: { x: [4, 3] } })).rejects.toThrow(
      /statistics over the whole step \('step'\)/,
    );
  });
});

describe('evaluation', () => {
  test('uses the running statistics and leaves them alone', async () => {
    const { y, mean, variance } = await run({ training: false });
    expect(
      relativeError(
        y,
        (x.data as Float32Array).map((v) => v / Math.sqrt(1.001)),
      ),
    ).toBeLessThan(1e-6);
    expect([...mean, ...variance]).toEqual([0, 0, 0, 1, 1, 1]);
  });

  test('starts at nothing with gamma zeros', async () => {
    const { y } = await run({ training: false, options: { gamma: 'zeros' } });
    expect(y.every((value) => value === 0)).toBe(true);
  });
});
