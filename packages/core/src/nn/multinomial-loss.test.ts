/** Values and gradients are held against the fixtures by the golden tests; here is what they cannot show. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { compile } from '../compile/compile.ts';
import { Device } from '../device.ts';
import type { Tensor } from '../tensor.ts';
import { noise, parametersOf } from './golden.ts';
import { alphaGenomeLoss, bpnetLoss, multinomialLoss } from './multinomial-loss.ts';

let device: Device;
beforeAll(async () => {
  device = await Device.open();
});
afterAll(() => device.close());

type Inputs = Readonly<Record<'p' | 't' | 'c', Tensor>>;

const CASES: readonly (readonly [string, (x: Inputs) => Tensor])[] = [
  ['of separate strands', ({ p, t }) => multinomialLoss(p, t)],
  ['of joint strands', ({ p, t }) => multinomialLoss(p, t, { strands: 'joint' })],
  ['with a count', ({ p, t, c }) => bpnetLoss({ logits: p, logCounts: c }, t, { countWeight: 0.5 })],
  ['in segments', ({ p, t }) => alphaGenomeLoss(p, t, { resolution: 4 })],
];

describe('split over leaves', () => {
  test.each(CASES)('a loss %s adds up to the loss of the whole batch', async (_, loss) => {
    const shape = [6, 8, 2];
    const step = (x: Readonly<Record<string, Tensor>>): Record<string, Tensor> => ({
      loss: loss(x as Inputs),
    });
    const run = async (leaves: number): Promise<number> => {
      const inputs = { p: shape, t: shape, c: [6, 1] };
      const compiled = await compile(step, { device, inputs, leaves });
      const out = await compiled({
        p: noise(shape, 1, [0.1, 2]),
        t: noise(shape, 2, [0, 9]),
        c: noise([6, 1], 3, [2, 4]),
      });
      compiled.close();
      return Number(out.loss!.data[0]);
    };
    const [whole, split] = [await run(1), await run(3)];
    expect(Math.abs(split / whole - 1)).toBeLessThan(1e-6);
  });
});

test('segments that do not fill the length are refused', () => {
  const { p, t } = parametersOf({ p: noise([2, 9, 3], 1), t: noise([2, 9, 3], 2) });
  expect(() => alphaGenomeLoss(p!, t!, { resolution: 4 })).toThrow(
    /segments of 4 do not fill the 9 positions/,
  );
});

test('log counts of another shape are refused', () => {
  const { p, t, c } = parametersOf({ p: noise([2, 9, 2], 1), t: noise([2, 9, 2], 2), c: noise([2, 2], 3) });
  expect(() => bpnetLoss({ logits: p!, logCounts: c! }, t!, { countWeight: 1 })).toThrow(
    /prediction is \[2, 2\] but the target is \[2, 1\]/,
  );
});
