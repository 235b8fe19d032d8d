/** Ops on a device against numbers of an independent float64 program: `test/fixtures/README.md`. */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compile } from '../compile/compile.ts';
import { Device } from '../device.ts';
import { gradients } from '../grad.ts';
import { elementCount, type HostTensor, hostTensor } from '../host-tensor.ts';
import { parameter } from '../parameter.ts';
import { decodeSafetensors } from '../safetensors.ts';
import type { Tensor } from '../tensor.ts';
import { evaluateOnDevice, relativeError } from '../testing.ts';
import { add } from './arithmetic.ts';
import { conv1d, convTranspose1d } from './conv1d.ts';
import * as activations from './elementwise.ts';
import { matmul } from './matmul.ts';
import { averagePool1d, globalAveragePool1d, maxPool1d } from './pool.ts';
import { augmentSequence, augmentTargets, oneHot } from './sequence.ts';

const FILE = new URL('../../../../test/fixtures/ops/ops_public.safetensors', import.meta.url);
const { tensors, metadata } = decodeSafetensors(readFileSync(FILE), FILE.pathname);
const cases = JSON.parse(metadata.cases!) as Readonly<Record<string, Readonly<Record<string, unknown>>>>;

let device: Device;

beforeAll(async () => {
  device = await Device.open();
});

afterAll(async () => {
  await device.close();
});

/** A stored tensor with its axes put into another order, if there is one. */
function stored(name: string, order?: readonly number[]): HostTensor {
  const tensor = tensors.get(name);
  if (tensor === undefined) throw new Error(`${FILE.pathname} has no ${name}`);
  const values = Float32Array.from(tensor.data as Float32Array);
  return order === undefined
    ? hostTensor(tensor.shape, values)
    : transpose(hostTensor(tensor.shape, values), order);
}

function transpose({ shape, data }: HostTensor, order: readonly number[]): HostTensor {
  const strides = shape.map((_, axis) => elementCount(shape.slice(axis + 1)));
  const sizes = order.map((axis) => shape[axis]!);
  const values = Float32Array.from({ length: data.length }, (_, i) => {
    let rest = i;
    let at = 0;
    for (let axis = order.length - 1; axis >= 0; axis--) {
      at += (rest % sizes[axis]!) * strides[order[axis]!]!;
      rest = Math.floor(rest / sizes[axis]!);
    }
    return data[at] as number;
  });
  return hostTensor(sizes, values);
}

const CHANNELS_LAST = [0, 2, 1]; // the file has [batch, channels, length] and [out, in, size]
const WEIGHT = [2, 1, 0];

type Orders = Readonly<Record<string, readonly number[] | undefined>>;

/** Output and all gradients of a case; `orders` bring the file's axes into ours. */
async function expectCase(
  name: string,
  inputs: readonly string[],
  orders: Orders,
  compute: (inputs: Readonly<Record<string, Tensor>>) => Tensor,
): Promise<void> {
  const leaf = (key: string, value: HostTensor): Tensor =>
    parameter(value.shape, { name: key, init: () => value.data as Float32Array });
  const tensorsIn = Object.fromEntries(inputs.map((x) => [x, leaf(x, stored(`${name}/in/${x}`, orders[x]))]));
  const y = compute(tensorsIn);
  const seed = leaf('cotangent', stored(`${name}/cot/y`, orders.y));
  const results = gradients(y, seed, Object.values(tensorsIn));
  const outputs = { y, ...Object.fromEntries(inputs.map((x, i) => [`d${x}`, results[i]!])) };
  const measured: Readonly<Record<string, Float32Array>> = await evaluateOnDevice(device, outputs);
  const expected = stored(`${name}/out/y`, orders.y);
  expect(y.shape).toEqual(expected.shape);
  expect(relativeError(measured.y!, expected.data as Float32Array), 'output').toBeLessThanOrEqual(1e-5);
  for (const x of inputs) {
    const gradient = stored(`${name}/grad/${x}`, orders[x]).data as Float32Array;
    expect(relativeError(measured[`d${x}`]!, gradient), `gradient of ${x}`).toBeLessThanOrEqual(1e-4);
  }
}

const has = (name: string): boolean => tensors.has(name);
const named = (op: string): string[] => Object.keys(cases).filter((name) => cases[name]!.op === op);

describe('activations agree with the reference at ±100 too', () => {
  const functions: Readonly<Record<string, (x: Tensor) => Tensor>> = {
    elu: activations.elu,
    exp_linear: activations.expLinear,
    gelu_erf: activations.geluErf,
    gelu_sigmoid1702: activations.geluSigmoid,
    gelu_tanh: activations.geluTanh,
    'leaky_relu_0.2': (x) => activations.leakyRelu(x, { slope: 0.2 }),
    log1p_relu: activations.log1pRelu,
    relu: activations.relu,
    sigmoid: activations.sigmoid,
    silu: activations.silu,
    softplus: activations.softplus,
    tanh: activations.tanh,
  };
  it.each(named('activation'))('%s', async (name) => {
    const activation = functions[cases[name]!.activation as string]!;
    await expectCase(name, ['x'], {}, ({ x }) => activation(x!));
  });
});

describe('convolutions agree with the reference', () => {
  it.each(named('conv1d'))('%s', async (name) => {
    const { stride, dilation, padding, groups } = cases[name] as {
      groups: number;
      stride: number;
      dilation: number;
      padding: 'same' | 'valid';
    };
    const inputs = ['x', 'w', ...(has(`${name}/in/b`) ? ['b'] : [])];
    const orders = { x: CHANNELS_LAST, w: WEIGHT, y: CHANNELS_LAST };
    await expectCase(name, inputs, orders, ({ x, w, b }) => {
      const y = conv1d(x!, w!, { stride, dilation, padding, groups });
      return b === undefined ? y : add(y, b);
    });
  });
});

it('a transposed convolution agrees with the reference', async () => {
  const name = 'conv_transpose1d_k25_same';
  const inputs = ['x', 'w', ...(has(`${name}/in/b`) ? ['b'] : [])];
  const orders = { x: CHANNELS_LAST, w: WEIGHT, y: CHANNELS_LAST }; // the file's weight is [in, out, size]
  await expectCase(name, inputs, orders, ({ x, w, b }) => {
    const y = convTranspose1d(x!, w!);
    return b === undefined ? y : add(y, b);
  });
});

describe('pools agree with the reference', () => {
  const orders = { x: CHANNELS_LAST, y: CHANNELS_LAST };
  it.each(named('maxpool1d'))('%s', async (name) => {
    const {
      pool: size,
      stride,
      mode: padding,
    } = cases[name] as {
      pool: number;
      stride: number;
      mode: 'same' | 'valid' | 'ceil';
    };
    await expectCase(name, ['x'], orders, ({ x }) => maxPool1d(x!, { size, stride, padding }));
  });
  it.each(named('avgpool1d'))('%s', async (name) => {
    await expectCase(name, ['x'], orders, ({ x }) =>
      averagePool1d(x!, { size: cases[name]!.pool as number }),
    );
  });
  it.each(named('globalavgpool1d'))('%s', async (name) => {
    await expectCase(name, ['x'], { x: CHANNELS_LAST }, ({ x }) => globalAveragePool1d(x!));
  });
});

describe('matrix products agree with the reference', () => {
  it('batched_matmul', () => expectCase('batched_matmul', ['a', 'b'], {}, ({ a, b }) => matmul(a!, b!)));
  it('batched_matmul_bt', () =>
    expectCase('batched_matmul_bt', ['a', 'b'], {}, ({ a, b }) => matmul(a!, b!, { transposeB: true })));
  it('dense', () =>
    expectCase('dense', ['x', 'w', 'b'], {}, ({ x, w, b }) => add(matmul(x!, w!, { transposeB: true }), b!)));
});

describe('augmentation agrees with the reference exactly', () => {
  /** Codes [batch, length] of one-hot rows. */
  const codesOf = ({ shape, data }: HostTensor): HostTensor => {
    const rows = Array.from({ length: data.length / 4 }, (_, row) =>
      (data as Float32Array).subarray(4 * row, 4 * row + 4),
    );
    return hostTensor(
      shape.slice(0, 2),
      rows.map((row) => (row.includes(1) ? row.indexOf(1) : 4)),
    );
  };
  const leaf = (name: string, { shape, data }: HostTensor): Tensor =>
    parameter(shape, { name, init: () => data as Float32Array });
  const augment = (batch: number, reverse: number, shift: number): Tensor =>
    leaf('augment', hostTensor([batch, 2], Array.from({ length: batch }, () => [reverse, shift]).flat()));

  it.each([
    ['reverse_complement', 1, 0],
    ['shift_+3', 0, 3],
    ['shift_-2', 0, -2],
  ])('%s', async (name, reverse, shift) => {
    const codes = codesOf(stored(`${name}/in/x`));
    const y = augmentSequence(leaf('codes', codes), augment(codes.shape[0]!, reverse, shift));
    const same = oneHot(leaf('codes', codes));
    const result = await evaluateOnDevice(device, { y, same });
    expect(result.same).toEqual(stored(`${name}/in/x`).data);
    expect(result.y).toEqual(stored(`${name}/out/y`).data);
  });

  it('codes stored as u8 and targets as f16 are decoded', async () => {
    const compiled = await compile(
      ({ codes, augments, targets }) => ({
        x: augmentSequence(codes!, augments!),
        same: oneHot(codes!),
        y: augmentTargets(targets!, augments!, leaf('own', hostTensor([1], [0]))),
      }),
      {
        device,
        inputs: {
          codes: { shape: [1, 5], dtype: 'u8' },
          augments: [1, 2],
          targets: { shape: [1, 3, 1], dtype: 'f16' },
        },
      },
    );
    const result = await compiled({
      codes: Uint8Array.of(0, 1, 2, 3, 4),
      augments: Float32Array.of(1, 1),
      targets: Uint16Array.of(0x3c00, 0xc000, 0x7bff), // 1, −2, 65504: the largest f16
    });
    compiled.close();
    compiled.state.close();
    const rows = (letters: string): Float32Array =>
      Float32Array.from(
        [...letters].flatMap((letter) => [...'ACGT'].map((base) => (base === letter ? 1 : 0))),
      );
    expect(result.same!.data).toEqual(rows('ACGTN'));
    expect(result.x!.data).toEqual(rows('ACGTN')); // shifted right: NACGT; its reverse complement
    expect(result.y!.data).toEqual(Float32Array.of(65_504, -2, 1));
  });

  it('switch_reverse_strand_pair', async () => {
    const targets = stored('switch_reverse_strand_pair/in/y');
    const pairs = tensors.get('switch_reverse_strand_pair/in/pair')!.data as BigInt64Array;
    const strandPair = leaf('pairs', hostTensor([pairs.length], Array.from(pairs, Number)));
    const y = augmentTargets(leaf('targets', targets), augment(targets.shape[0]!, 1, 0), strandPair);
    const result = await evaluateOnDevice(device, { y });
    expect(result.y).toEqual(stored('switch_reverse_strand_pair/out/y').data);
  });
});
