import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { compile } from '../compile/compile.ts';
import { Device } from '../device.ts';
import { gradients } from '../grad.ts';
import { evaluateOn, noise } from '../nn/golden.ts';
import { declaredOp } from '../op.ts';
import { ones, parameter } from '../parameter.ts';
import { hashName } from '../random.ts';
import { withLayer, withScope } from '../scope.ts';
import { Tensor } from '../tensor.ts';
import { relativeError } from '../testing.ts';
import { add } from './arithmetic.ts';
import { dropout, dropoutThreshold, hashWords } from './random.ts';
import { reshape } from './shape.ts';

let device: Device;
beforeAll(async () => {
  device = await Device.open();
});
afterAll(() => device.close());

describe('hashWords', () => {
  test('is MurmurHash3_x86_32', () => {
    // Values that SMHasher's implementation gives for these words, little-endian, and seed 0.
    expect(hashWords()).toBe(0);
    expect(hashWords(0)).toBe(0x2362_f9de);
    expect(hashWords(0x8765_4321)).toBe(0xf55b_516b);
  });

  const kept = (seed: number, step: number, sequence: number, id: number, element: number): number =>
    hashWords(seed, step, sequence, id, element) >= dropoutThreshold(0.3) ? 1 : 0;
  const count = 200_000;

  test('keeps the share of elements it should', () => {
    let total = 0;
    for (let i = 0; i < count; i++) total += kept(1, 2, 3, 4, i);
    expect(Math.abs(total / count - 0.7)).toBeLessThan(0.005); // five standard deviations
  });

  test.each([
    ['neighbours', 0, 0, 0, 1],
    ['rows of 768 channels', 0, 0, 0, 768],
    ['layers', 0, 0, 1, 0],
    ['sequences', 0, 1, 0, 0],
    ['steps', 1, 0, 0, 0],
  ])('is uncorrelated between %s', (_, step, sequence, id, element) => {
    let both = 0;
    for (let i = 0; i < count; i++) {
      both += (kept(1, 2, 3, 4, i) - 0.7) * (kept(1, 2 + step, 3 + sequence, 4 + id, i + element) - 0.7);
    }
    expect(Math.abs(both / count / 0.21)).toBeLessThan(0.012); // five standard deviations of 1 / √count
  });

  test('flips half of its bits when any input bit is flipped', () => {
    for (let word = 0; word < 5; word++) {
      for (let bit = 0; bit < 32; bit++) {
        let flipped = 0;
        for (let i = 0; i < 256; i++) {
          const words = [7, i, 3, hashName(`layer.${i}`), 31 * i];
          const changed = words.with(word, words[word]! ^ (1 << bit));
          for (let x = hashWords(...words) ^ hashWords(...changed); x !== 0; x &= x - 1) flipped++;
        }
        expect(Math.abs(flipped / 256 / 32 - 0.5)).toBeLessThan(0.04);
      }
    }
  });
});

describe('dropout', () => {
  test('is x itself outside training and at rate 0, and refuses a rate of 1', async () => {
    await evaluateOn(device, { x: noise([2, 3], 1) }, ({ x }) => {
      expect(dropout(x, { rate: 0.5 })).toBe(x);
      withScope({ training: true }, () => {
        expect(dropout(x, { rate: 0 })).toBe(x);
        expect(() => dropout(x, { rate: 1 })).toThrow(/the rate is 1; it must be in \[0, 1\)/);
      });
      return { y: dropout(x, { rate: 0.5 }) };
    });
  });

  test('gives the mask of its reference on the device', async () => {
    const op = declaredOp('dropout');
    const attrs = { rate: 0.4, id: hashName('block.dropout') };
    const x = noise([5, 7, 11], 2);
    const { y } = await evaluateOn(device, { x }, (inputs) => ({
      y: new Tensor(op, inputs, attrs, op.infer(inputs, attrs)),
    }));
    const reference = op.reference!(
      { x: { shape: x.shape, data: Float64Array.from(x.data as Float32Array) } },
      attrs,
    );
    expect([...(y!.data as Float32Array)].map((v) => v === 0)).toEqual([...reference].map((v) => v === 0));
    expect(relativeError(y!.data as Float32Array, reference)).toBeLessThan(1e-6);
  });

  const step = (inputs: Readonly<Record<string, Tensor>>): Record<string, Tensor> =>
    withScope({ training: true }, () => {
      const x = inputs.x!;
      const y = withLayer('a', () => dropout(x, { rate: 0.3 }));
      const other = withLayer('b', () => dropout(x, { rate: 0.3 }));
      const [dx] = gradients(y, inputs.dy!, [x]);
      return { y, other, dx: dx! };
    });

  test('drops the same elements however the batch is split, others in each layer and step', async () => {
    const x = new Float32Array(6 * 50 * 8).fill(1);
    const shape = [6, 50, 8];
    const run = async (leaves: number): Promise<Record<string, Float32Array>[]> => {
      const compiled = await compile(step, { device, inputs: { x: shape, dy: shape }, leaves, seed: 5 });
      const outputs = [await compiled({ x, dy: x }), await compiled({ x, dy: x })];
      compiled.close();
      return outputs.map((all) =>
        Object.fromEntries(Object.entries(all).map(([name, { data }]) => [name, data as Float32Array])),
      );
    };
    const [first, second] = await run(1);
    expect(await run(3)).toEqual([first, second]);
    expect(first!.dx).toEqual(first!.y); // the backward pass drops what the forward pass dropped
    expect(second!.y).not.toEqual(first!.y);
    expect(first!.other).not.toEqual(first!.y);
    expect(first!.y!.subarray(0, 400)).not.toEqual(first!.y!.subarray(400, 800));
    const kept = first!.y!.filter((value) => value !== 0);
    expect(Math.abs(kept.length / 2400 - 0.7)).toBeLessThan(0.05);
    expect(kept.every((value) => value === Math.fround(1 / 0.7))).toBe(true);
  });

  test('drops the same of what all sequences share, others in each step', async () => {
    const x = parameter([5, 7], { name: 'x', init: ones });
    const shared = ({ by }: Readonly<Record<string, Tensor>>): Record<string, Tensor> =>
      withScope({ training: true, path: 'a' }, () => ({
        y: add(reshape(by!, [-1, 1, 1]), dropout(x, { rate: 0.4, shared: true })), // [sequence, 5, 7]
      }));
    const compiled = await compile(shared, { device, inputs: { by: [4] }, leaves: 2, seed: 5 });
    for (const step of [0, 1]) {
      const { y } = await compiled({ by: new Float32Array(4) });
      const words = Array.from({ length: 35 }, (_, i) => hashWords(5, step, 0, hashName('a/'), i));
      const expected = words.map((word) => (word >= dropoutThreshold(0.4) ? Math.fround(1 / 0.6) : 0));
      expect([...(y!.data as Float32Array)]).toEqual([...expected, ...expected, ...expected, ...expected]);
    }
    compiled.close();
    compiled.state.close();
  });
});
