/** The stem of a long-range model on a tensor larger than one binding, forward and backward, against float64. */
import {
  compile,
  constant,
  Device,
  gradients,
  multiply,
  nn,
  slice,
  sum,
  type Tensor,
  withScope,
} from '@cohesin/core';
import { environment, publish, summarize, table } from './report.ts';

const LENGTH_BP = 196_608; // Enformer's input
const CHANNELS = 768; // after its stem: half of the trunk's 1,536
const SIZE = 15;
const EPSILON = 1e-3;
const RUNS = 3;
/** Rows of the pooled output that are read back: the first, the last, and 14 places between. */
const PLACES: readonly number[] = Array.from({ length: 16 }, (_, i) =>
  Math.floor((i * (LENGTH_BP / 2 - 4)) / 15),
);
const CHECKED_CHANNELS = [0, 389, CHANNELS - 1];
const GATE = 1e-4; // sums of up to 196,608 values in f32, in chunks

/**
 * conv 4 → 768 (604 MB), batch norm, GELU, max-pool by 2 (302 MB), and the gradient of Σ y² in the convolution's weight.
 *
 * @throws when a value differs from float64 by more than the gate.
 */
export async function large(): Promise<void> {
  await using device = await Device.open();
  const conv = nn.conv1d({ inputs: 4, outputs: CHANNELS, size: SIZE, padding: 'same', bias: false });
  const norm = nn.batchNorm({ channels: CHANNELS, epsilon: EPSILON });
  const model = nn.sequential({ conv, norm, activation: nn.geluSigmoid, pool: nn.maxPool({ size: 2 }) });
  const weight = nn.parameters(model).get('conv.weight')!;
  const step = await compile(
    ({ x }): Record<string, Tensor> => {
      const y = withScope({ training: true }, () => model(x!));
      const [slope] = gradients(sum(multiply(y, y)), constant(1), [weight]);
      const rows = PLACES.map((from, i) => [`rows${i}`, slice(y, { from, to: from + 4 })] as const);
      return { slope: slope!, ...Object.fromEntries(rows) };
    },
    { device, inputs: { x: [1, LENGTH_BP, 4] } },
  );
  const x = new Float32Array(LENGTH_BP * 4);
  for (let row = 0; row < LENGTH_BP; row++)
    x[row * 4 + (Math.imul(row ^ (row >> 3), 2_654_435_761) >>> 30)] = 1;
  const times: number[] = [];
  let outputs: Awaited<ReturnType<typeof step>> = {};
  for (let run = 0; run < RUNS; run++) {
    const start = performance.now();
    outputs = await step({ x });
    times.push(performance.now() - start);
  }
  const weights = (await step.state.read(['conv.weight'])).get('conv.weight')!.data as Float32Array;
  const errors = CHECKED_CHANNELS.map((channel) => {
    const expected = reference(x, weights, channel);
    const rows = PLACES.flatMap((_, i) => column(outputs[`rows${i}`]!.data as Float32Array, channel));
    const wanted = PLACES.flatMap((from) => [...expected.pooled.subarray(from, from + 4)]);
    const slope = column(outputs.slope!.data as Float32Array, channel);
    return { channel, rows: relativeError(rows, wanted), slope: relativeError(slope, [...expected.slope]) };
  });
  report(device, step.program, times, errors);
  step.close();
  step.state.close();
}

/** Values of one channel of a tensor whose last axis is the channels. */
function column(values: Float32Array, channel: number): number[] {
  return [...values].filter((_, i) => i % CHANNELS === channel);
}

function relativeError(actual: readonly number[], expected: readonly number[]): number {
  const largest = Math.max(...expected.map(Math.abs));
  return Math.max(...expected.map((value, i) => Math.abs(value - actual[i]!))) / largest;
}

/** One channel in float64: the pooled values, and the gradient of Σ y² in its weights [size, 4]. */
function reference(
  x: Float32Array,
  weights: Float32Array,
  channel: number,
): { pooled: Float64Array; slope: Float64Array } {
  const taps = Float64Array.from({ length: SIZE * 4 }, (_, i) => weights[i * CHANNELS + channel]!);
  const convolved = new Float64Array(LENGTH_BP);
  eachProduct((row, source, tap) => {
    convolved[row]! += x[source]! * taps[tap]!;
  });
  const mean = convolved.reduce((a, b) => a + b, 0) / LENGTH_BP;
  const variance = convolved.reduce((a, b) => a + (b - mean) ** 2, 0) / LENGTH_BP;
  const deviation = Math.sqrt(variance + EPSILON);
  const normal = convolved.map((value) => (value - mean) / deviation);
  const logistic = normal.map((value) => 1 / (1 + Math.exp(-1.702 * value)));
  const active = normal.map((value, i) => value * logistic[i]!);
  const pooled = new Float64Array(LENGTH_BP / 2);
  const dNormal = new Float64Array(LENGTH_BP);
  for (let i = 0; i < pooled.length; i++) {
    const at = active[2 * i]! >= active[2 * i + 1]! ? 2 * i : 2 * i + 1;
    pooled[i] = active[at]!;
    const s = logistic[at]!;
    dNormal[at] = 2 * active[at]! * (s + 1.702 * normal[at]! * s * (1 - s));
  }
  const total = dNormal.reduce((a, b) => a + b, 0) / LENGTH_BP;
  const product = dNormal.reduce((a, b, i) => a + b * normal[i]!, 0) / LENGTH_BP;
  const slope = new Float64Array(SIZE * 4);
  eachProduct((row, source, tap) => {
    slope[tap]! += (x[source]! * (dNormal[row]! - total - normal[row]! * product)) / deviation;
  });
  return { pooled, slope };
}

/** Calls `visit` with the output row and flat indices into x and the taps of every product of the convolution. */
function eachProduct(visit: (row: number, source: number, tap: number) => void): void {
  for (let row = 0; row < LENGTH_BP; row++) {
    for (let tap = 0; tap < SIZE; tap++) {
      const position = row + tap - (SIZE - 1) / 2;
      if (position < 0 || position >= LENGTH_BP) continue;
      for (let c = 0; c < 4; c++) visit(row, position * 4 + c, tap * 4 + c);
    }
  }
}

interface ChannelErrors {
  readonly channel: number;
  readonly rows: number;
  readonly slope: number;
}

function report(
  device: Device,
  program: Awaited<ReturnType<typeof compile>>['program'],
  times: readonly number[],
  errors: readonly ChannelErrors[],
): void {
  const steps = program.segments.flatMap(({ once, leaf }) => [...once, ...leaf]);
  const windows = steps.filter(({ window }) => window !== undefined);
  const kernels = windows.filter(({ window }) => window!.index === 0).length;
  const pages = Math.max(...windows.map(({ window }) => window!.pages));
  const { medianMs, bestMs } = summarize(times);
  const gib = device.allocatedBytes / 2 ** 30;
  const peak = process.resourceUsage().maxRSS / 2 ** 20;
  const { bindingMiB, text } = {
    bindingMiB: device.info.maxBindingBytes / 2 ** 20,
    text: table(
      ['channel', 'pooled rows, relative error', 'weight gradient, relative error'],
      errors.map(({ channel, rows, slope }) => [`${channel}`, rows.toExponential(1), slope.toExponential(1)]),
    ),
  };
  publish({
    name: 'large',
    title: 'A tensor of 604 MB on a device that binds less',
    environment: environment(device.info),
    text: [
      `Convolution 4 → ${CHANNELS} of ${LENGTH_BP} bp, batch norm, GELU, max-pool, and the gradient of the weight. One binding holds ${bindingMiB} MiB: ${kernels} of ${steps.length - windows.length + kernels} kernels run in ${windows.length} windows, ${pages === 1 ? 'none in pages' : `with up to ${pages - 1} further pages`}.`,
      `${medianMs.toFixed(0)} ms a step (median of ${times.length}, best ${bestMs.toFixed(0)}); ${gib.toFixed(2)} GiB on the device, ${peak.toFixed(2)} GiB of the process in all.`,
      text,
    ].join('\n\n'),
    data: { windows: windows.length, kernels, pages, times, gib, errors },
  });
  const worst = Math.max(...errors.flatMap(({ rows, slope }) => [rows, slope]));
  if (!(worst <= GATE)) throw new Error(`the worst relative error is ${worst}; it must be at most ${GATE}`);
}
