/** Enformer's stem and first tower block at full width and length, forward and backward, in parts and whole. */
import {
  type Compiled,
  compile,
  constant,
  Device,
  gradients,
  type HostTensor,
  leafSum,
  nn,
  type Traceable,
  withScope,
} from '@cohesin/core';
import { enformerStem, enformerTowerBlock } from '@cohesin/models';
import { environment, publish, table } from './report.ts';

const LENGTH_BP = Number(process.env.FULL_SIZE_BP ?? 196_608);
const CHANNELS = Number(process.env.FULL_SIZE_CHANNELS ?? 768);
const PARTS = 24;

interface Measured {
  readonly seconds: number;
  readonly loss: number;
  readonly gradients: ReadonlyMap<string, Float32Array>;
  readonly deviceGb: number;
  readonly processGb: number;
  readonly windows: number;
}

/**
 * x one-hot [1, 196,608, 4] → [1, 49,152, 768], mean square against a target, gradients of all weights: once with the
 * sequence in 24 parts, once whole.
 */
export async function fullSize(): Promise<void> {
  const parts = await measure({ leavesPerSequence: PARTS });
  const whole = await measure({});
  const errors = [...whole.gradients]
    .filter(([name]) => !name.endsWith('conv.bias')) // a norm follows, so in exact arithmetic their gradient is 0
    .map(([name, expected]) => ({ name, error: relativeError(parts.gradients.get(name)!, expected) }));
  const worst = errors.reduce((a, b) => (a.error > b.error ? a : b));
  const row = (name: string, { seconds, loss, deviceGb, processGb, windows }: Measured): string[] => [
    name,
    seconds.toFixed(1),
    deviceGb.toFixed(2),
    processGb.toFixed(2),
    `${windows}`,
    loss.toPrecision(9),
  ];
  const text = [
    `Stem (convolution of 15 bp, 4 → ${CHANNELS}, residual pointwise block, attention pool) and first tower block of Enformer, one sequence of ${LENGTH_BP} bp, forward and backward, f32.`,
    table(
      ['sequence', 'step with compilation, s', 'device GB', 'process GB', 'windows', 'loss'],
      [row(`in ${PARTS} parts`, parts), row('whole', whole)],
    ),
    `Largest difference of a gradient, beside its largest value: ${worst.error.toExponential(1)} (${worst.name}); of the loss ${Math.abs(parts.loss / whole.loss - 1).toExponential(1)}.`,
  ].join('\n\n');
  await using device = await Device.open();
  const data = { parts: summary(parts), whole: summary(whole), errors };
  publish({
    name: 'full-size',
    title: 'Enformer’s stem and first tower block at full size',
    environment: environment(device.info),
    text,
    data,
  });
}

const summary = ({ gradients: _, ...rest }: Measured): Omit<Measured, 'gradients'> => rest;

function step(): Traceable {
  const model = nn.sequential({
    stem: enformerStem(CHANNELS),
    tower: enformerTowerBlock(CHANNELS, CHANNELS),
  });
  const trained = [...nn.parameters(model)].filter(([, { trainable }]) => trainable);
  return ({ x, y }) => {
    const loss = withScope({ training: true }, () =>
      nn.withBatchNorm({ group: 'sequence', sequences: 1 }, () => nn.mseLoss(model(x!), y!)),
    );
    const slopes = gradients(
      loss,
      constant(1),
      trained.map(([, parameter]) => parameter),
    );
    const sums = trained.map(([name], i) => [
      name,
      withScope({ path: name, phase: 'U' }, () => leafSum(slopes[i]!, name)),
    ]);
    return { loss, ...Object.fromEntries(sums) };
  };
}

async function measure(leaves: { readonly leavesPerSequence?: number }): Promise<Measured> {
  await using device = await Device.open();
  const shapes = { x: [1, LENGTH_BP, 4], y: [1, LENGTH_BP / 4, CHANNELS] };
  const compiled: Compiled = await compile(step(), { device, inputs: shapes, seed: 1, ...leaves });
  const x = new Float32Array(LENGTH_BP * 4);
  for (let row = 0; row < LENGTH_BP; row++)
    x[row * 4 + (Math.imul(row ^ (row >> 3), 2_654_435_761) >>> 30)] = 1;
  const y = Float32Array.from({ length: (LENGTH_BP / 4) * CHANNELS }, (_, i) => ((i * 31) % 17) * 0.1);
  const start = performance.now();
  const outputs: Record<string, HostTensor> = await compiled({ x, y });
  const seconds = (performance.now() - start) / 1000;
  console.log(`${JSON.stringify(leaves)}: ${seconds.toFixed(1)} s`);
  const { loss, ...slopes } = outputs;
  const steps = compiled.program.segments.flatMap(({ once, leaf }) => [...once, ...leaf]);
  const result = {
    seconds,
    loss: loss!.data[0] as number,
    gradients: new Map(
      Object.entries(slopes).map(([name, { data }]) => [name, Float32Array.from(data as Float32Array)]),
    ),
    deviceGb: device.allocatedBytes / 1e9,
    processGb: process.memoryUsage().rss / 1e9,
    windows: steps.filter(({ window }) => window !== undefined).length,
  };
  compiled.close();
  compiled.state.close();
  return result;
}

/** Beside the largest value. */
function relativeError(values: Float32Array, expected: Float32Array): number {
  const scale = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return expected.reduce((most, value, i) => Math.max(most, Math.abs(value - values[i]!)), 0) / scale;
}
