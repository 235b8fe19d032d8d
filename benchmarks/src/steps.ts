/** What a step costs besides the work on the device: CPU time of encoding, and memory that grows. */
import { readFileSync } from 'node:fs';
import {
  adam,
  add,
  clipGlobalNorm,
  compile,
  Device,
  nn,
  type Tensor,
  type Traceable,
  trainStep,
} from '@cohesin/core';
import { environment, publish, summarize, table } from './report.ts';

const BLOCKS = 24;
const CHANNELS = 16;
const SHAPE = [4, 8, CHANNELS] as const;
const STEPS = 8000;
const WARM_UP = 100;
/** Steps until the collector's spaces and the allocator's arenas have the size that they keep. */
const SETTLED = 6000;
/** The step that ends the measurement of encoding. */
const ENCODED = 1000;
/** Consecutive steps whose memory is averaged: neighbours depend on each other, such averages hardly do. */
const SPAN = 50;
const BAR_US = 8;

/** Trains a network of many tiny kernels, so that a step is mostly what is done for each of them. */
export async function steps(): Promise<void> {
  await using device = await Device.open();
  const step = await compile(manyKernels(), { device, inputs: { x: SHAPE, y: SHAPE } });
  const encoding = measureEncoding(device);
  const x = Float32Array.from({ length: SHAPE[0] * SHAPE[1] * SHAPE[2] }, (_, i) => Math.sin(i));
  const [perDispatch, rss, native]: [number[], number[], number[]] = [[], [], []];
  let made = { ...device.created };
  for (let i = 0; i < STEPS; i++) {
    const before = step.executor.dispatchCount;
    encoding.us = 0;
    await step({ x, y: x });
    if (i === WARM_UP) made = { ...device.created };
    if (i >= WARM_UP && i < ENCODED) perDispatch.push(encoding.us / (step.executor.dispatchCount - before));
    if (i < SETTLED) continue;
    const memory = process.memoryUsage();
    rss.push(memory.rss);
    native.push(memory.rss - memory.heapTotal - memory.external);
  }
  const dispatches = step.executor.dispatchCount / STEPS;
  report(device, { dispatches, kernels: step.program.shaders.length, perDispatch, rss, native, made });
  step.close();
  step.state.close();
}

/** Residual blocks of a layer norm and two products each. */
function manyKernels(): Traceable {
  const block = (): nn.Layer => {
    const branch = nn.sequential({
      norm: nn.layerNorm({ channels: CHANNELS }),
      up: nn.linear({ inputs: CHANNELS, outputs: CHANNELS }),
      gelu: nn.geluSigmoid,
      down: nn.linear({ inputs: CHANNELS, outputs: CHANNELS }),
    });
    return nn.layer({ branch }, (x: Tensor) => add(x, branch(x)));
  };
  const model = nn.sequential(Array.from({ length: BLOCKS }, block));
  const optimizer = adam({ learningRate: 1e-3, clip: clipGlobalNorm(1) });
  return trainStep({ model, loss: nn.mseLoss, optimizer });
}

/** Counts the CPU time of this thread, in µs, from the making of each encoder to the end of its submission. */
function measureEncoding(device: Device): { us: number } {
  const count = { us: 0 };
  const [encoder, submit] = [device.encoder.bind(device), device.submit.bind(device)];
  let start = 0;
  device.encoder = (label) => {
    start = threadMicroseconds();
    return encoder(label);
  };
  device.submit = (commands) => {
    submit(commands);
    count.us += threadMicroseconds() - start - OVERHEAD_US;
  };
  return count;
}

/** CPU time of this thread (Linux). The kernel brings the account up to date when a thread sleeps, so it naps. */
function threadMicroseconds(): number {
  Atomics.wait(CLOCK, 0, 0, 0.01);
  return Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'utf8').split(' ')[0]) / 1000;
}

const CLOCK = new Int32Array(new SharedArrayBuffer(4));
/** What two readings are apart with nothing between them. */
const OVERHEAD_US: number = summarize(
  Array.from({ length: 1000 }, () => -threadMicroseconds() + threadMicroseconds()).slice(500),
).medianMs;

/** The slope of a line through values at 0, 1, 2, … by least squares, with its standard error. */
function slope(values: readonly number[]): { readonly slope: number; readonly error: number } {
  const n = values.length;
  const mean = values.reduce((a, b) => a + b, 0) / n;
  const at = (i: number): number => i - (n - 1) / 2;
  const squares = values.reduce((total, _, i) => total + at(i) ** 2, 0);
  const own = values.reduce((total, value, i) => total + at(i) * value, 0) / squares;
  const rest = values.reduce((total, value, i) => total + (value - mean - own * at(i)) ** 2, 0);
  return { slope: own, error: Math.sqrt(rest / (n - 2) / squares) };
}

interface Measured {
  readonly dispatches: number;
  readonly kernels: number;
  readonly perDispatch: readonly number[];
  readonly rss: readonly number[];
  /** Without the JavaScript heap, which grows and shrinks as the collector pleases. */
  readonly native: readonly number[];
  readonly made: Device['created'];
}

/** Growth in bytes a step, from means over spans. */
function growth(values: readonly number[]): {
  readonly spans: readonly number[];
  readonly slope: number;
  readonly error: number;
} {
  const spans = Array.from({ length: values.length / SPAN }, (_, i) =>
    Math.round(values.slice(i * SPAN, (i + 1) * SPAN).reduce((a, b) => a + b / SPAN, 0)),
  );
  const line = slope(spans);
  return { spans, slope: line.slope / SPAN, error: line.error / SPAN };
}

function report(device: Device, { dispatches, kernels, perDispatch, rss, native, made }: Measured): void {
  const { medianMs: medianUs, bestMs: bestUs, p90Ms: p90Us } = summarize(perDispatch);
  const memory = { RSS: growth(rss), 'RSS without the JavaScript heap': growth(native) };
  const newObjects = Object.entries(device.created).map(
    ([kind, count]) => [kind, count - made[kind as keyof typeof made]] as const,
  );
  const mebibytes = (bytes: number): string => (bytes / 2 ** 20).toFixed(1);
  const rows = Object.entries(memory).map(([name, { spans, slope: own, error }]) => {
    const range = [spans[0]!, Math.min(...spans), Math.max(...spans), spans.at(-1)!].map(mebibytes);
    return [name, own.toFixed(0), error.toFixed(0), ...range];
  });
  const text = [
    `A training step of ${dispatches} dispatches of ${kernels} kernels on tensors of ${SHAPE.join(' × ')}: CPU time of the calling thread from
the making of an encoder to the end of its submission, by dispatch, over steps ${WARM_UP}–${ENCODED} (bar ${BAR_US} µs).`,
    table(
      ['', 'median', 'best', 'p90'],
      [['µs a dispatch', ...[medianUs, bestUs, p90Us].map((us) => us.toFixed(2))]],
    ),
    `Memory of the process over steps ${SETTLED}–${STEPS}: a line by least squares through means of ${SPAN} steps (neighbouring steps are not
independent, so single ones would make the error look small). Before, the collector's spaces and the allocator's arenas find
their size.`,
    table(['', 'bytes a step', 'standard error', 'first MiB', 'least', 'most', 'last'], rows),
    `GPU objects made after step ${WARM_UP}: ${newObjects.map(([kind, count]) => `${count} ${kind}`).join(', ')}.`,
  ].join('\n\n');
  publish({
    name: 'steps',
    title: 'What a step costs besides its work',
    environment: environment(device.info),
    text,
    data: {
      dispatches,
      kernels,
      encoding: { medianUs, bestUs, p90Us },
      memory,
      newObjects: Object.fromEntries(newObjects),
    },
  });
}
