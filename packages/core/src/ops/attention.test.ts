import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compile } from '../compile/compile.ts';
import { Device } from '../device.ts';
import { gradients } from '../grad.ts';
import { elementCount, type HostTensor } from '../host-tensor.ts';
import { multiHeadAttention } from '../nn/attention.ts';
import { conv1d } from '../nn/conv.ts';
import { noise } from '../nn/golden.ts';
import { mseLoss } from '../nn/loss.ts';
import { sequential } from '../nn/sequential.ts';
import { sgd } from '../optim/sgd.ts';
import { hashName } from '../random.ts';
import { withScope } from '../scope.ts';
import type { Tensor } from '../tensor.ts';
import { asReference, asTensors } from '../testing/evaluate.ts';
import { evaluateOnDevice, interpret, relativeError } from '../testing.ts';
import { trainStep } from '../train-step.ts';
import { add, multiply } from './arithmetic.ts';
import { type RelativeAttentionInputs, relativeAttention } from './attention.ts';
import { sumOverKeys } from './attention-products.ts';
import { matmul } from './matmul.ts';
import { permute } from './permute.ts';
import { dropout, dropoutThreshold, hashWords } from './random.ts';
import { relativeShift } from './relative-shift.ts';
import { reshape } from './shape.ts';
import { softmax } from './softmax.ts';

let device: Device;
beforeAll(async () => {
  device = await Device.open();
});
afterAll(() => device.close());

const [BATCH, LENGTH, HEADS, CHANNELS, VALUES] = [2, 13, 3, 5, 7];
const DRAWN = {
  query: noise([BATCH, LENGTH, HEADS, CHANNELS], 1, [-4, 4]),
  key: noise([BATCH, LENGTH, HEADS, CHANNELS], 2),
  value: noise([BATCH, LENGTH, HEADS, VALUES], 3),
  relativeKey: noise([2 * LENGTH - 1, HEADS, CHANNELS], 4),
  contentBias: noise([HEADS, CHANNELS], 5),
  positionBias: noise([HEADS, CHANNELS], 6),
  seed: noise([BATCH, LENGTH, HEADS, VALUES], 7),
};
type Name = keyof typeof DRAWN;
type Operands = Record<Name, Tensor>;
const NAMES = (Object.keys(DRAWN) as Name[]).filter((name) => name !== 'seed');

/** The output by way of weights [batch, query, head, key], the logits from plain products and a shift. */
function byMaps(inputs: RelativeAttentionInputs, weigh = (weights: Tensor): Tensor => weights): Tensor {
  const scaled = multiply(inputs.query, CHANNELS ** -0.5);
  const byHead = (x: Tensor): Tensor => permute(x, [0, 2, 1, 3]);
  const content = matmul(byHead(add(scaled, inputs.contentBias)), permute(inputs.key, [0, 2, 3, 1]));
  const rows = permute(add(scaled, inputs.positionBias), [2, 0, 1, 3]); // [head, batch, query, channel]
  const columns = permute(inputs.relativeKey, [1, 2, 0]); // [head, channel, distance]
  const byDistance = matmul(reshape(rows, [HEADS, -1, CHANNELS]), columns); // [head, batch · query, distance]
  const byQuery = permute(reshape(byDistance, [HEADS, -1, LENGTH, 2 * LENGTH - 1]), [1, 0, 2, 3]);
  const weights = softmax(add(content, relativeShift(byQuery))); // [batch, head, query, key]
  return sumOverKeys(weigh(byHead(weights)), inputs.value);
}

/** y and its gradients. */
function traced(x: Operands, attend: (x: Operands) => Tensor): Record<string, Tensor> {
  const y = attend(x);
  const slopes = gradients(
    y,
    x.seed,
    NAMES.map((name) => x[name]),
  );
  return { y, ...Object.fromEntries(NAMES.map((name, i) => [name, slopes[i]!])) };
}

const drawn = (changed: Partial<Record<Name, HostTensor>> = {}): Operands =>
  asTensors({ ...DRAWN, ...changed }) as Operands;

/** The float64 values of tensors of these operands. */
function exactly(x: Operands, tensors: Record<string, Tensor>, values = DRAWN): Record<string, Float64Array> {
  const known = new Map((Object.keys(DRAWN) as Name[]).map((name) => [x[name], asReference(values[name])]));
  const found = interpret(Object.values(tensors), known);
  return Object.fromEntries(Object.keys(tensors).map((name, i) => [name, found[i]!.data]));
}

function expectAllClose(
  actual: Readonly<Record<string, ArrayLike<number>>>,
  expected: Readonly<Record<string, ArrayLike<number>>>,
): void {
  for (const [name, values] of Object.entries(expected))
    expect(relativeError(actual[name]!, values), name).toBeLessThan(2e-6); // sums of at most 26 products in f32
}

describe('relativeAttention', () => {
  it('and its gradients equal those by way of maps in float64', async () => {
    const x = drawn();
    const maps = exactly(
      x,
      traced(x, (own) => byMaps(own)),
    );
    expectAllClose(await evaluateOnDevice(device, traced(x, relativeAttention)), maps);
    expectAllClose(await evaluateOnDevice(device, traced(x, byMaps)), maps);
  });

  it('has no gradient for what all keys of a query share', async () => {
    const value = { ...DRAWN.value, data: (DRAWN.value.data as Float32Array).map((x) => x + 3) };
    const { relativeKey } = await evaluateOnDevice(device, traced(drawn({ value }), relativeAttention));
    const [sums, sizes] = [new Float64Array(HEADS * CHANNELS), new Float64Array(HEADS * CHANNELS)];
    relativeKey!.forEach((slope, i) => {
      sums[i % sums.length]! += slope;
      sizes[i % sums.length]! += Math.abs(slope);
    });
    // The same added to a channel of all distances changes no weight; with values around 3 rounding would.
    expect(Math.max(...sums.map((sum, i) => Math.abs(sum) / sizes[i]!))).toBeLessThan(1e-6);
  });

  it('holds where a row has logits from −400 to 400', async () => {
    const query = { ...DRAWN.query, data: (DRAWN.query.data as Float32Array).map((value) => 100 * value) };
    const x = drawn({ query });
    const { y } = exactly(x, { y: byMaps(x) }, { ...DRAWN, query });
    const found = await evaluateOnDevice(device, { y: relativeAttention(x) });
    expect(relativeError(found.y, y!)).toBeLessThan(1e-4); // exp of a difference of numbers up to 400, each to 3e-5
  });

  it('drops the same weights forward and backward', async () => {
    const rate = 0.3;
    const training = (trace: () => Record<string, Tensor>): Record<string, Tensor> =>
      withScope({ training: true, path: 'block' }, trace);
    const x = drawn();
    const fused = training(() => traced(x, (own) => relativeAttention(own, { dropoutRate: rate })));
    const maps = training(() =>
      traced(x, (own) => byMaps(own, (weights) => dropout(weights, { rate, name: 'attention' }))),
    );
    const expected = exactly(x, maps);
    const perSequence = LENGTH * HEADS * LENGTH;
    const words = Array.from({ length: perSequence }, (_, i) =>
      hashWords(0, 0, 0, hashName('block/attention'), i),
    );
    const lost = words.filter((word) => word < dropoutThreshold(rate)).length;
    expect(lost / perSequence).toBeCloseTo(rate, 1);
    expectAllClose(await evaluateOnDevice(device, fused), expected);
    const { y } = exactly(x, { y: byMaps(x) });
    expect(relativeError(expected.y!, y!)).toBeGreaterThan(0.1);
  });

  it('drops nothing outside training', async () => {
    const x = drawn();
    const both = { kept: relativeAttention(x), dropped: relativeAttention(x, { dropoutRate: 0.5 }) };
    const { kept, dropped } = await evaluateOnDevice(device, both);
    expect(dropped).toEqual(kept);
  });

  it('passes NaN on to its sequence and head', async () => {
    const data = Float32Array.from(DRAWN.key.data as Float32Array);
    data[0] = Number.NaN; // sequence 0, position 0, head 0
    const { y } = await evaluateOnDevice(device, {
      y: relativeAttention(drawn({ key: { ...DRAWN.key, data } })),
    });
    const isHit = (i: number): boolean =>
      i < elementCount([LENGTH, HEADS, VALUES]) && Math.floor(i / VALUES) % HEADS === 0;
    y.forEach((value, i) => {
      expect(Number.isNaN(value), `element ${i}`).toBe(isHit(i));
    });
  });

  it('names the operand that does not fit', () => {
    const relativeKey = noise([LENGTH, HEADS, CHANNELS], 4);
    expect(() => relativeAttention(drawn({ relativeKey }))).toThrow(
      'relativeKey is [13, 3, 5] beside a query of [2, 13, 3, 5] [batch, length, heads, channels]; it must be [25, 3, 5]',
    );
  });
});

describe('multiHeadAttention', () => {
  const sizes = { inputs: 6, outputs: 6, length: 8, heads: 2, keySize: 3, valueSize: 3, features: 6 };
  const trained = async (
    cut: { readonly leaves?: number; readonly leavesPerSequence?: number },
    dropoutRate = 0,
  ): Promise<Map<string, HostTensor>> => {
    const model = sequential({
      context: conv1d({ inputs: 6, outputs: 6, size: 3, padding: 'same' }), // rows are cut where a window slides
      attention: multiHeadAttention({ ...sizes, dropoutRate, positionDropoutRate: dropoutRate }),
    });
    const step = await compile(trainStep({ model, loss: mseLoss, optimizer: sgd({ learningRate: 0.5 }) }), {
      device,
      inputs: { x: [2, 8, 6], y: [2, 8, 6] },
      ...cut,
      seed: 3,
    });
    for (let i = 0; i < 3; i++) await step({ x: noise([2, 8, 6], i).data, y: noise([2, 8, 6], 9 + i).data });
    const state = await step.state.read(TRAINED.map((name) => `attention.${name}`));
    step.close();
    return state;
  };
  const TRAINED =
    'query.weight key.weight value.weight relative_key.weight embedding.weight embedding.bias r_w_bias r_r_bias'.split(
      ' ',
    );

  it.each([
    ['sequence by sequence', { leaves: 2 }, 0],
    ['in parts of each sequence', { leavesPerSequence: 4 }, 0],
    ['sequence by sequence, dropping the same weights and features', { leaves: 2 }, 0.4],
    ['in parts, dropping the same weights and features', { leavesPerSequence: 2 }, 0.4],
  ] as const)('trains alike whole and %s', async (_, cut, dropoutRate) => {
    const [whole, split] = [await trained({}, dropoutRate), await trained(cut, dropoutRate)];
    for (const [name, { data }] of whole)
      expect(relativeError(split.get(name)!.data as Float32Array, data as Float32Array), name).toBeLessThan(
        1e-5,
      ); // three steps of f32 sums in other orders
  });

  it('names the length that does not fit', async () => {
    const layer = multiHeadAttention(sizes);
    await expect(
      compile(({ x }) => ({ y: layer(x!) }), { device, inputs: { x: [2, 9, 6] } }),
    ).rejects.toThrow('x is [2, 9, 6] but the layer is made for [batch, 8, inputs]; set length: 9');
  });
});
