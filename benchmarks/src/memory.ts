/** What training steps need at full size: plans only, no device is opened. */
import { type BuildOptions, build, memoryReport, type Program, programBytes, rounds } from '@cohesin/core';
import { SUBJECTS, type Subject } from './published.ts';
import { environment, publish, table } from './report.ts';

const BINDING_LIMIT = 128 * 2 ** 20; // what WebGPU grants everywhere

/** Builds each plan and prints its memory in full. */
export function memory(): void {
  const results = SUBJECTS.map((subject) => ({
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
