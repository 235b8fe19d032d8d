/** What is measured against the peers: the same numbers in, through the library's own API. */
import {
  assign,
  type Compiled,
  compile,
  constant,
  conv1d,
  type Device,
  elementCount,
  gradients,
  type HostTensor,
  hostTensor,
  layerNormalize,
  matmul,
  multiply,
  type Parameter,
  parameter,
  softmax,
  sum,
  type Tensor,
} from '@cohesin/core';
import { CONV, convStep, MLP, mlpStep } from './networks.ts';

/** A case ready to run. */
export interface Prepared {
  /** One run; gives the result, unless that stays on the device. */
  run(): Promise<Float32Array>;
  /** The result of the last run, where it stays on the device. */
  result?(): Promise<Float32Array>;
  close(): void;
}

export interface Case {
  readonly name: string;
  /** Floating-point operations of a run, where these are what it is limited by. */
  readonly flops?: number;
  /** Bytes of its operands and result, where moving them is. With neither it is a training step. */
  readonly bytes?: number;
  prepare(device: Device): Promise<Prepared>;
}

const ROW = 1536; // Enformer: bins, and channels of its transformer
const SOFTMAX_ROWS = 12288; // 8 heads of 1,536 bins
const LENGTH = 8192;
const CHANNELS = 256;
const SIZE = 5;
const CONV_FLOPS = 2 * LENGTH * CHANNELS * CHANNELS * SIZE;

export const CASES: readonly Case[] = [
  ...[512, 1024].map(
    (size): Case => ({
      name: `matmul${size}`,
      flops: 2 * size ** 3,
      prepare: (device) => prepareMatmul(device, size),
    }),
  ),
  { name: 'conv_fwd', flops: CONV_FLOPS, prepare: prepareConv },
  { name: 'conv_fwdbwd', flops: 3 * CONV_FLOPS, prepare: prepareConvGradient },
  { name: 'softmax', bytes: 2 * 4 * SOFTMAX_ROWS * ROW, prepare: prepareSoftmax },
  { name: 'layernorm', bytes: 2 * 4 * ROW * ROW, prepare: prepareLayerNorm },
  { name: 'train_mlp', prepare: prepareMlp },
  { name: 'train_conv', prepare: prepareConvNet },
];

/** The peers' deterministic numbers in [−scale, scale). */
export function det(count: number, seed: number, scale = 1): Float32Array {
  const offset = seed * 7919;
  return Float32Array.from({ length: count }, (_, i) => {
    const hash = Math.imul((i + offset) >>> 0, 2654435761) >>> 0;
    return (hash / 4294967296 - 0.5) * 2 * scale;
  });
}

/** A tensor that stays on the device. */
function resident(name: string, shape: readonly number[], values: Float32Array): Parameter {
  return parameter(shape, { name, init: () => values });
}

async function prepareMatmul(device: Device, size: number): Promise<Prepared> {
  const a = resident('a', [size, size], det(size * size, 1));
  const b = resident('b', [size, size], det(size * size, 2));
  return outputOf(await compile(() => ({ y: matmul(a, b) }), { device, inputs: {} }), 'y');
}

function convOperands(): { readonly x: Parameter; readonly weight: Parameter } {
  const x = channelsLast(det(CHANNELS * LENGTH, 1), CHANNELS, LENGTH);
  const weight = weightLayout(det(CHANNELS * CHANNELS * SIZE, 2, 0.05), CHANNELS, CHANNELS, SIZE);
  return {
    x: resident('x', [1, LENGTH, CHANNELS], x),
    weight: resident('weight', [SIZE, CHANNELS, CHANNELS], weight),
  };
}

async function prepareConv(device: Device): Promise<Prepared> {
  const { x, weight } = convOperands();
  return outputOf(await compile(() => ({ y: conv1d(x, weight) }), { device, inputs: {} }), 'y');
}

async function prepareConvGradient(device: Device): Promise<Prepared> {
  const { x, weight } = convOperands();
  const cotangent = channelsLast(det(CHANNELS * LENGTH, 3), CHANNELS, LENGTH);
  const dy = resident('dy', [1, LENGTH, CHANNELS], cotangent);
  const step = (): Record<string, Tensor> => {
    const loss = sum(multiply(conv1d(x, weight), dy));
    const [dx, dWeight] = gradients(loss, constant(1), [x, weight]);
    return { loss, dx: dx!, dWeight: dWeight! };
  };
  return outputOf(await compile(step, { device, inputs: {} }), 'dWeight');
}

async function prepareSoftmax(device: Device): Promise<Prepared> {
  const x = resident('x', [SOFTMAX_ROWS, ROW], det(SOFTMAX_ROWS * ROW, 1, 4));
  return storing(device, x.shape, () => softmax(x));
}

async function prepareLayerNorm(device: Device): Promise<Prepared> {
  const x = resident('x', [ROW, ROW], det(ROW * ROW, 1, 4));
  const gamma = resident('gamma', [ROW], det(ROW, 2));
  const beta = resident('beta', [ROW], det(ROW, 3));
  return storing(device, x.shape, () => layerNormalize(x, gamma, beta, { epsilon: 1e-5 }));
}

/** A result that stays on the device until all runs are over, as the peers' do. */
async function storing(device: Device, shape: readonly number[], value: () => Tensor): Promise<Prepared> {
  const y = resident('y', shape, new Float32Array(elementCount(shape)));
  const step = (): Record<string, Tensor> => {
    assign(y, value());
    return {};
  };
  const compiled = await compile(step, { device, inputs: {} });
  return {
    run: async () => {
      await compiled({});
      await device.queue.onSubmittedWorkDone();
      return new Float32Array();
    },
    result: async () => (await compiled.state.read(['y'])).get('y')!.data as Float32Array,
    close: () => compiled.close(),
  };
}

function outputOf(compiled: Compiled, name: string): Prepared {
  return {
    run: async () => (await compiled({}))[name]!.data as Float32Array,
    close: () => compiled.close(),
  };
}

async function prepareMlp(device: Device): Promise<Prepared> {
  const { batch, inputs, hidden, outputs } = MLP;
  const compiled = await compile(mlpStep(), { device, inputs: { x: [batch, inputs], y: [batch, outputs] } });
  return training(
    compiled,
    {
      first: { weight: hostTensor([inputs, hidden], det(inputs * hidden, 11, 0.05)) },
      second: { weight: hostTensor([hidden, hidden], det(hidden * hidden, 12, 0.05)) },
      third: { weight: hostTensor([hidden, outputs], det(hidden * outputs, 13, 0.05)) },
    },
    { x: det(batch * inputs, 1), y: det(batch * outputs, 2) },
  );
}

async function prepareConvNet(device: Device): Promise<Prepared> {
  const { batch, length, inputs, channels, size1, size2, outputs } = CONV;
  const compiled = await compile(convStep(), {
    device,
    inputs: { x: [batch, length, inputs], y: [batch, outputs] },
  });
  const weight = (seed: number, from: number, size: number, scale: number): HostTensor =>
    hostTensor(
      [size, from, channels],
      weightLayout(det(channels * from * size, seed, scale), channels, from, size),
    );
  const x = det(batch * inputs * length, 1);
  const rows = Array.from({ length: batch }, (_, b) =>
    channelsLast(x.subarray(b * inputs * length, (b + 1) * inputs * length), inputs, length),
  );
  return training(
    compiled,
    {
      first: { weight: weight(11, inputs, size1, 0.1) },
      second: { weight: weight(12, channels, size2, 0.05) },
      third: { weight: hostTensor([channels, outputs], det(channels * outputs, 13, 0.1)) },
    },
    { x: Float32Array.from(rows.flatMap((row) => [...row])), y: det(batch * outputs, 2) },
  );
}

/** A training step from the peers' weights; gives the losses of the first eight steps. */
function training(
  compiled: Compiled,
  weights: Readonly<Record<string, Readonly<Record<string, HostTensor>>>>,
  inputs: Readonly<Record<string, Float32Array>>,
): Prepared {
  compiled.state.write(
    new Map(
      Object.entries(weights).flatMap(([layer, own]) =>
        Object.entries(own).map(([name, value]) => [`${layer}.${name}`, value] as const),
      ),
    ),
  );
  const losses: number[] = [];
  const run = async (): Promise<Float32Array> => {
    const { loss } = await compiled(inputs);
    losses.push(loss!.data[0] as number);
    return Float32Array.from(losses.slice(0, 8));
  };
  return { run, close: () => compiled.close() };
}

/** [channel, row] → [row, channel]. */
function channelsLast(x: Float32Array, channels: number, length: number): Float32Array {
  return Float32Array.from(
    { length: x.length },
    (_, i) => x[(i % channels) * length + Math.floor(i / channels)]!,
  );
}

/** [output, input, tap] → [tap, input, output]. */
function weightLayout(weight: Float32Array, outputs: number, inputs: number, size: number): Float32Array {
  return Float32Array.from({ length: weight.length }, (_, i) => {
    const output = i % outputs;
    const input = Math.floor(i / outputs) % inputs;
    const tap = Math.floor(i / outputs / inputs);
    return weight[(output * inputs + input) * size + tap]!;
  });
}
