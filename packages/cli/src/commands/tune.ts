import {
  adam,
  build,
  clipGlobalNorm,
  type DeviceInfo,
  defaultTuneCache,
  type KernelTable,
  median,
  nn,
  openTuneCache,
  openTuner,
  type Precision,
  type Product,
  productsOf,
  readKernelTable,
  sortedTable,
  type Traceable,
  type Tuned,
  type Tuner,
  tableOf,
  trainStep,
  tune,
  worthTuning,
  writeKernelTable,
} from '@cohesin/core';
import { enformer, lossOf, optimizerOf } from '@cohesin/models';
import { type Command, type Options, UsageError } from '../command-line.ts';
import { duration, type Output, openOutput } from '../progress.ts';
import { openModel } from '../study.ts';
import { leavesOf, usage } from '../task.ts';

const MODELS = 'basenji2,akita,enformer';

export const tuneCommand: Command = {
  name: 'tune',
  about: 'measure the kernels of models on this device and write a kernel table, for train --kernel-table',
  examples: [
    'cohesin tune --out table.json',
    'cohesin tune --model params.json --batch 4 --out table.json',
    'cohesin tune --model enformer --parts 8 --precision mixed --out table.json',
  ],
  options: {
    out: { value: 'FILE', about: 'the table; classes it already holds and that are not measured now stay' },
    model: {
      value: 'A,B',
      about: `enformer, names and params files as train takes them (default ${MODELS})`,
    },
    batch: { value: 'N', about: 'sequences a step (default: as train)' },
    parts: { value: 'P', about: 'parts of each sequence, as for train (default 1)' },
    precision: { value: 'f32|mixed', about: 'mixed: matrix units, where the device has them (default f32)' },
    cache: { value: 'FILE', about: `what was measured before (default ${defaultTuneCache()})` },
    json: { about: 'one JSON object a line instead of text' },
  },
  run: async (options) => {
    const output = openOutput(options.flag('json'));
    const out = options.required('out');
    const precision = options.choice('precision', ['f32', 'mixed']) ?? 'f32';
    const known = await usage(() => knownTable(out));
    const cache = await usage(() => openTuneCache(options.text('cache') ?? defaultTuneCache()));
    const tuner = await openTuner(precision);
    try {
      const products = worthTuning(tuner.target, await productsOfModels(options, tuner, precision));
      output.say(`${tuner.info.description}: ${products.length} classes of products`);
      const tuned = await tune(tuner, { products, cache, onTuned: progressOf(output) });
      await writeTable(out, known, tuned, tuner.info);
      summarize(out, tuned, output);
    } finally {
      tuner.close();
    }
  },
};

/** What the table's file holds already; nothing if there is none. */
async function knownTable(path: string): Promise<KernelTable> {
  return readKernelTable(path).catch((error: unknown) => {
    const cause = error instanceof Error ? (error.cause as NodeJS.ErrnoException | undefined) : undefined;
    if (cause?.code === 'ENOENT') return {};
    throw error;
  });
}

/** What training the models computes on this device. */
async function productsOfModels(
  options: Options,
  { target }: Tuner,
  precision: Precision,
): Promise<Product[]> {
  const parts = options.count('parts') ?? 1;
  const products: Product[] = [];
  for (const name of (options.text('model') ?? MODELS).split(',')) {
    const { step, batch, leaves, inputs } = await usage(() => stepOf(name, options.count('batch'), parts));
    const cut = parts > 1 ? { leavesPerSequence: parts } : { leaves };
    try {
      products.push(
        ...productsOf(() => {
          build(step, { ...cut, target, precision, inputs: inputs(batch) });
        }),
      );
    } catch (cause) {
      throw new UsageError(`${name}: ${(cause as Error).message}`, { cause });
    }
  }
  return products;
}

interface ModelStep {
  readonly step: Traceable;
  readonly batch: number;
  readonly leaves: number;
  readonly inputs: (batch: number) => Readonly<Record<'x' | 'y', readonly number[]>>;
}

/** The training step of a model, as `train` compiles it. */
async function stepOf(name: string, given: number | undefined, parts: number): Promise<ModelStep> {
  if (name === 'enformer') {
    const optimizer = adam({ learningRate: 5e-4, clip: clipGlobalNorm(0.2) });
    const batch = given ?? 1;
    return {
      step: trainStep({ model: enformer().head('human'), loss: nn.poissonLoss, optimizer }),
      ...{ batch, leaves: batch },
      inputs: () => ({ x: [batch, 196_608, 4], y: [batch, 896, 5_313] }),
    };
  }
  const { model, config, train } = await openModel(name);
  const batch = given ?? train.batchSize;
  const leaves = parts > 1 ? batch : leavesOf(batch, config.sequenceLengthBp);
  return {
    step: trainStep({
      model,
      loss: lossOf(train),
      optimizer: optimizerOf(train),
      batchNorm: { group: 'sequence', sequences: batch / leaves },
    }),
    ...{ batch, leaves },
    inputs: () => ({ x: [batch, config.sequenceLengthBp, 4], y: [batch, ...config.outputShape] }),
  };
}

/** Says what each class gave, how far it is, and how long the rest may take. */
function progressOf(output: Output): (tuned: Tuned, done: number, total: number) => void {
  const start = performance.now();
  let measured = 0;
  return (tuned, done, total) => {
    const { productClass, tiles, winner, cached } = tuned;
    output.event({ event: 'tuned', ...tuned });
    for (const { tile } of tiles.filter(({ right }) => !right))
      output.say(`WRONG RESULT: ${productClass}, tile ${tile}; it is not used`);
    if (winner !== undefined) output.say(`${productClass}: ${winner}, ${gainText(tuned)}`);
    if (!cached) measured++;
    const each = (performance.now() - start) / 1000 / Math.max(measured, 1);
    const left = measured === 0 ? '' : `, at most ${duration(each * (total - done))} left`;
    output.progress(`${done} of ${total}${left}: ${productClass}${cached ? ' (known)' : ''}`);
  };
}

/** Gain of the winner over the estimate's choice: median over the rounds. */
function gainOf({ tiles, winner }: Tuned): number {
  const [first, best] = [tiles[0]!, tiles.find(({ tile }) => tile === winner)!];
  return median(best.microseconds.map((time, round) => first.microseconds[round]! / time));
}

function gainText(tuned: Tuned): string {
  return tuned.tiles[0]!.right
    ? `${gainOf(tuned).toFixed(2)} times as fast as ${tuned.tiles[0]!.tile}`
    : `since ${tuned.tiles[0]!.tile} is wrong`;
}

async function writeTable(
  path: string,
  known: KernelTable,
  tuned: readonly Tuned[],
  device: DeviceInfo,
): Promise<void> {
  const now = new Set(tuned.map(({ productClass }) => productClass));
  const kept = Object.entries(known).filter(([name]) => !now.has(name));
  const gains = tuned
    .filter(({ winner, tiles }) => winner !== undefined && tiles[0]!.right)
    .map((one) => [one.productClass, Number(gainOf(one).toFixed(2))] as const);
  await writeKernelTable(path, sortedTable([...kept, ...Object.entries(tableOf(tuned))]), {
    device: device.description,
    date: new Date().toISOString().slice(0, 10),
    gains: Object.fromEntries(gains),
  });
}

function summarize(path: string, tuned: readonly Tuned[], output: Output): void {
  const won = tuned.filter(({ winner }) => winner !== undefined).length;
  const cached = tuned.filter((one) => one.cached).length;
  output.say(
    `${path}: ${won} of ${tuned.length} classes have a tile that clearly beats the estimate's choice; ${cached} were known from before`,
  );
  output.event({ event: 'end', table: path, classes: tuned.length, won, cached });
  output.endProgress();
}
