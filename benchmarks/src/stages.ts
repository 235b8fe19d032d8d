/** What ranks hold when Enformer at full size is cut into stages: plans only, no device is opened. */
import {
  adam,
  buildStages,
  byteLength,
  clipGlobalNorm,
  nn,
  programBytes,
  type StageProgram,
  trainStep,
} from '@cohesin/core';
import { checkSchedule, makeSchedule } from '@cohesin/distributed';
import { enformer } from '@cohesin/models';
import { environment, publish, table } from './report.ts';

const BINDING_LIMIT = 128 * 2 ** 20; // what WebGPU grants everywhere
const LEAVES = 8;
const RECOMPUTE = ['trunk.stem', 'trunk.tower.*', 'trunk.transformer.*'];

const CUTS: readonly (readonly string[])[] = [
  ['trunk.stem', 'trunk.transformer'],
  ['trunk.stem', 'trunk.tower.1', 'trunk.transformer'],
  ['trunk.stem', 'trunk.tower.1', 'trunk.transformer.0', 'trunk.transformer.6'],
];

interface Row {
  readonly stage: string;
  readonly leaves: number;
  readonly state: number;
  readonly peak: number;
  readonly handedOn: readonly string[];
}

export function stages(): void {
  const results = CUTS.flatMap((cut) =>
    [false, true].map((again) => ({ name: titleOf(cut, again), rows: planned(cut, again) })),
  );
  const text = results.map(({ name, rows }) => `## ${name}\n\n${stageTable(rows)}`);
  const intro = `Enformer as published, 196,608 bp, human head, Adam, f32, ${LEAVES} sequences a step under 1F1B, one device a stage, kernels for
software drivers. State is weights, running statistics and moments; the peak is everything on the device of a stage, with as
many sequences in flight as the schedule has.`;
  const where = environment({ device: 'none', description: 'plans are made without a device' });
  const title = 'Memory of Enformer in stages';
  publish({ name: 'stages', title, environment: where, text: [intro, ...text].join('\n\n'), data: results });
}

const titleOf = (cut: readonly string[], again: boolean): string =>
  `${cut.length} stages${again ? `, recompute: ${RECOMPUTE.join(', ')}` : ''}`;

function planned(cut: readonly string[], again: boolean): Row[] {
  const optimizer = adam({ learningRate: 5e-4, clip: clipGlobalNorm(0.2) });
  const step = trainStep({ model: enformer().head('human'), loss: nn.poissonLoss, optimizer });
  const { inFlight } = checkSchedule(
    makeSchedule('1f1b', { stages: cut.map((_, rank) => [rank]), within: 'data' }, LEAVES),
  );
  const { program } = buildStages(step, {
    inputs: { x: [LEAVES, 196_608, 4], y: [LEAVES, 896, 5_313] },
    leaves: LEAVES,
    bindingLimit: BINDING_LIMIT,
    stages: cut,
    inFlight,
    ...(again ? { recompute: RECOMPUTE } : {}),
  });
  return program.stages.map((stage, i) => rowOf(stage, `from ${cut[i]}`, inFlight[i]!));
}

function rowOf(program: StageProgram, stage: string, leaves: number): Row {
  const peak = Object.values(programBytes(program, leaves)).reduce((total, bytes) => total + bytes, 0);
  const state = program.state.reduce((total, { shape }) => total + byteLength({ shape, dtype: 'f32' }), 0);
  const handedOn = program.links
    .filter(({ from }) => from === program.stage)
    .map(({ value, to, bytes }) => `${value} to ${to}: ${(bytes / 2 ** 20).toFixed(2)}`);
  return { stage, leaves, state, peak, handedOn };
}

function stageTable(rows: readonly Row[]): string {
  return table(
    ['stage', 'sequences in flight', 'state GB', 'peak GB', 'handed on, MiB a sequence'],
    rows.map(({ stage, leaves, state, peak, handedOn }) => [
      stage,
      `${leaves}`,
      (state / 1e9).toFixed(2),
      (peak / 1e9).toFixed(2),
      handedOn.join('; '),
    ]),
  );
}
