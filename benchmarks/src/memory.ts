/** What training steps need at full size: plans only, no device is opened. */
import {
  adam,
  type BuildOptions,
  build,
  clipGlobalNorm,
  memoryReport,
  nn,
  type Program,
  programBytes,
  rounds,
  type Traceable,
  trainStep,
} from '@cohesin/core';
import { akita, type BuiltModel, enformer, lossOf, optimizerOf } from '@cohesin/models';
import { environment, publish, table } from './report.ts';

const BINDING_LIMIT = 128 * 2 ** 20; // what WebGPU grants everywhere

interface Subject {
  readonly name: string;
  readonly about: string;
  readonly step: Traceable;
  readonly inputs: BuildOptions['inputs'];
  readonly plans: Readonly<Record<string, Partial<BuildOptions>>>;
}

/** Builds each plan and prints its memory in full. */
export function memory(): void {
  const results = [enformerAsPublished(), akitaAsPublished()].map((subject) => ({
    ...subject,
    rows: Object.entries(subject.plans).map(([name, placement]) => planned(subject, name, placement)),
  }));
  const text = results.map(({ name, about, rows }) => `## ${name}\n\n${about}\n\n${planTable(rows)}`);
  const intro = `One sequence a step, f32, kernels for software drivers. "Kept" are activations that the backward pass reads; the peak is
everything on the device, with all leaves of a sequence on one and with one leaf on each.`;
  const where = environment({ device: 'none', description: 'plans are made without a device' });
  const data = results.map(({ name, rows }) => ({ name, rows }));
  const title = 'Memory of training at full size';
  publish({ name: 'memory', title, environment: where, text: [intro, ...text].join('\n\n'), data });
}

interface Row {
  readonly name: string;
  readonly leaves: number;
  /** Bytes with all leaves on one device. */
  readonly all: Bytes;
  /** Bytes with one leaf on each device. */
  readonly each: Bytes;
  readonly again: number;
}

interface Bytes {
  readonly peak: number;
  readonly kept: number;
}

function planned({ step, inputs, name: subject }: Subject, name: string, plan: Partial<BuildOptions>): Row {
  const { program } = build(step, { inputs, bindingLimit: BINDING_LIMIT, ...plan });
  const { leaves } = rounds(program);
  console.log(`${subject}, ${name}\n${memoryReport(program, leaves)}\n`);
  if (leaves > 1) console.log(`the same, one leaf on each device\n${memoryReport(program, 1)}\n`);
  const again = program.activations?.again ?? 0;
  return { name, leaves, all: bytesOf(program, leaves), each: bytesOf(program, 1), again };
}

function bytesOf(program: Program, leaves: number): Bytes {
  const peak = Object.values(programBytes(program, leaves)).reduce((a, b) => a + b, 0);
  const { device = 0, leaf = 0 } = program.activations ?? {};
  return { peak, kept: device + leaf * leaves };
}

function planTable(rows: readonly Row[]): string {
  const gigabytes = ({ peak, kept }: Bytes): string[] => [(peak / 1e9).toFixed(2), (kept / 1e9).toFixed(2)];
  return table(
    [
      'plan',
      'peak GB, one device',
      'kept GB',
      'peak GB, a device a leaf',
      'kept GB',
      'tensors computed again',
    ],
    rows.map(({ name, leaves, all, each, again }) => [
      name,
      ...gigabytes(all),
      ...(leaves === 1 ? ['', ''] : gigabytes(each)),
      `${again}`,
    ]),
  );
}

/** Avsec et al. 2021, as published, with the human head; statistics of each sequence alone. */
function enformerAsPublished(): Subject {
  const model = enformer().head('human');
  const optimizer = adam({ learningRate: 5e-4, clip: clipGlobalNorm(0.2) });
  const recompute = ['trunk.stem', 'trunk.tower.*', 'trunk.transformer.*'];
  return {
    name: 'Enformer',
    about: '196,608 bp, Poisson loss on 5,313 tracks, Adam.',
    step: trainStep({ model, loss: nn.poissonLoss, optimizer }),
    inputs: { x: [1, 196_608, 4], y: [1, 896, 5_313] },
    plans: {
      'no options': {},
      'recompute: false': { recompute: false },
      [`recompute: ${recompute.join(', ')}`]: { recompute },
      'memoryBudget: 10 GB': { memoryBudget: 10e9 },
      '8 leaves a sequence': { leavesPerSequence: 8 },
      '8 leaves, recompute': { leavesPerSequence: 8, recompute },
      '24 leaves a sequence': { leavesPerSequence: 24 },
      '24 leaves, recompute': { leavesPerSequence: 24, recompute },
    },
  };
}

/** Fudenberg et al. 2020, as published but for its batch of 2: sequences cut into leaves follow one another. */
function akitaAsPublished(): Subject {
  const { model, train }: BuiltModel = akita();
  const recompute = ['trunk.0', 'trunk.1.*', 'trunk.2.*', 'head.2', 'head.4.*'];
  return {
    name: 'Akita',
    about: '1,048,576 bp, mean squared error of 99,681 pairs of bins for 5 cell types, SGD with momentum.',
    step: trainStep({ model, loss: lossOf(train), optimizer: optimizerOf(train) }),
    inputs: { x: [1, 1_048_576, 4], y: [1, 99_681, 5] },
    plans: {
      'no options': {},
      'recompute: false': { recompute: false },
      [`recompute: ${recompute.join(', ')}`]: { recompute },
      '16 leaves a sequence': { leavesPerSequence: 16 },
      '16 leaves, recompute': { leavesPerSequence: 16, recompute },
    },
  };
}
