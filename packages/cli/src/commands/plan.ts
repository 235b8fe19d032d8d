import { readFile, writeFile } from 'node:fs/promises';
import { stepWork } from '@cohesin/core';
import {
  ASSUMED_COSTS,
  type Blocks,
  type Compared,
  type Costs,
  comparePlans,
  modelBlocks,
  type Prediction,
  placementOf,
  readCosts,
  traceEvents,
} from '@cohesin/distributed';
import { type ModelPlan, modelPlan } from '@cohesin/models';
import { type Command, type Options, UsageError } from '../command-line.ts';
import { parseJson } from '../json-file.ts';
import { type PlanFile, writePlanFile } from '../plan-file.ts';
import { planReport } from '../plan-report.ts';
import { openOutput } from '../progress.ts';
import { plannedModelId } from '../study.ts';
import { leavesOf, usage } from '../task.ts';

export const plan: Command = {
  name: 'plan',
  about: 'compare ways to train a model on several devices, without having them',
  examples: [
    'cohesin plan --model enformer --devices 8 --batch 64',
    'cohesin plan --model enformer --devices 8 --batch 64 --show stages --out plan.json',
    'cohesin plan --model akita --devices 4 --batch 8 --costs my-gpu.json',
    'cohesin plan --model borzoi.json --devices 8 --batch 16 --memory 80 --trace step.json',
  ],
  options: {
    model: {
      value: 'enformer|akita|borzoi|basenji2|basenji1|basset|FILE.json',
      about: 'a published model, or a Basenji or Baskerville params file',
    },
    devices: { value: 'N', about: 'devices to plan for; none is opened' },
    batch: { value: 'GLOBAL', about: 'sequences a step, over all devices' },
    'batch-norm': {
      value: 'sequence|step',
      about:
        'statistics of each sequence alone (default), or of the whole step, which no pipeline can honour',
    },
    leaves: { value: 'LIST', about: "leaves of a sequence to try, as 1,8,24 (default: the model's own)" },
    costs: { value: 'FILE.json', about: 'what a device and a link do; by default an assumed GPU of 24 GB' },
    memory: { value: 'GB', about: 'memory of a device, instead of that of the costs' },
    show: {
      value: 'NAME',
      about: 'show and write the fastest plan whose name begins so (default: the fastest of all)',
    },
    out: { value: 'FILE.json', about: 'write the plan, for train --plan' },
    trace: { value: 'FILE.json', about: 'write its timeline, for ui.perfetto.dev' },
    json: { about: 'one JSON object instead of text' },
  },
  run: async (options) => {
    const output = openOutput(options.flag('json'));
    const devices = needed(options, 'devices');
    const batch = needed(options, 'batch');
    const lockstep = (options.choice('batch-norm', ['sequence', 'step']) ?? 'sequence') === 'step';
    const costs = await readCostsOption(options);
    const model = await usage(() => modelPlan(options.required('model')));
    output.say(`Tracing ${model.title} …`);
    const groups = leavesOf(batch, lengthBp(model));
    const leaves = leavesOption(options) ?? model.leaves;
    const request = { model, devices, batch, groups, lockstep, costs, leaves };
    const { blocks, refused } = cuts(request);
    const microbatches = lockstep ? 1 : groups;
    const compared = comparePlans({ blocks, devices, microbatches, costs, lockstep });
    const all: Compared = { ...compared, refused: [...compared.refused, ...refused] };
    output.event(summary(all, request));
    const shown = named(all.plans, options.text('show') ?? '');
    const parameters = blocks[0]!.blocks.reduce((sum, block) => sum + block.parameters, 0);
    output.say(planReport(all, shown, { title: model.title, devices, batch, costs, parameters }));
    if (shown === undefined)
      throw new UsageError(
        'there is no such plan; --show takes a name of the table above; if that is empty, use more devices or devices with more memory',
      );
    await writeFiles(options, shown, blocks, request);
  },
};

/** The plan of this name, or the fastest whose name begins so. */
function named(plans: readonly Prediction[], name: string): Prediction | undefined {
  return plans.find(({ plan }) => plan.name === name) ?? plans.find(({ plan }) => plan.name.startsWith(name));
}

interface Request {
  readonly model: ModelPlan;
  readonly devices: number;
  readonly batch: number;
  /** Leaves of whole sequences that the batch is cut into, as in training. */
  readonly groups: number;
  /** All sequences of a step share statistics. */
  readonly lockstep: boolean;
  readonly costs: Costs;
  readonly leaves: readonly number[];
}

function needed(options: Options, name: string): number {
  options.required(name);
  return options.count(name)!;
}

async function readCostsOption(options: Options): Promise<Costs> {
  const path = options.text('costs');
  const memory = options.count('memory');
  const costs =
    path === undefined
      ? ASSUMED_COSTS
      : await usage(async () => readCosts(parseJson(await readFile(path, 'utf8'), path), path));
  return memory === undefined ? costs : { ...costs, device: { ...costs.device, memoryGb: memory } };
}

export function leavesOption(options: Options): number[] | undefined {
  const text = options.text('leaves');
  if (text === undefined) return undefined;
  const leaves = text.split(',').map(Number);
  if (!leaves.every((count) => Number.isInteger(count) && count > 0))
    throw new UsageError(`--leaves is '${text}'; it must be whole numbers with commas between, as 1,8,24`);
  return leaves;
}

function lengthBp({ inputs }: ModelPlan): number {
  const spec = inputs(1).x!;
  return ('shape' in spec ? spec.shape : spec)[1]!;
}

/** The model cut in each way that can be; under statistics of the whole step, into leaves of whole sequences. */
function cuts({
  model,
  batch,
  groups,
  lockstep,
  costs,
  leaves,
}: Request): Pick<Compared, 'refused'> & { blocks: Blocks[] } {
  const refused: Compared['refused'][number][] = [];
  const blocks: Blocks[] = [];
  const sequences = batch / groups;
  if (lockstep) {
    const step = model.step({ group: 'step', sequences });
    const work = stepWork(step, { inputs: model.inputs(batch), leaves: groups });
    return { blocks: [modelBlocks(work, costs)], refused };
  }
  const step = model.step({ group: 'sequence', sequences });
  for (const leavesPerSequence of leaves) {
    try {
      if (leavesPerSequence > 1 && sequences > 1)
        throw new Error(`sequences are short, a leaf has ${sequences} of them, and none is cut`);
      blocks.push(modelBlocks(stepWork(step, { inputs: model.inputs(sequences), leavesPerSequence }), costs));
    } catch (error) {
      refused.push({ name: `${leavesPerSequence} leaves a sequence`, reason: (error as Error).message });
    }
  }
  if (blocks.length === 0) throw new UsageError([...new Set(refused.map(({ reason }) => reason))].join('; '));
  return { blocks, refused };
}

function summary(
  { oneDeviceMs, plans, refused }: Compared,
  { model, devices, batch, costs }: Request,
): Record<string, unknown> {
  return {
    kind: 'plan',
    simulated: true,
    model: model.title,
    devices,
    batch,
    costs,
    oneDeviceMs,
    refused,
    plans: plans.map(
      ({ plan: { microbatches, stages: _, ...plan }, leaves, stepMs, bytes, parts, stages }) => ({
        ...plan,
        leavesPerSequence: leaves,
        stepMs,
        efficiency: oneDeviceMs / devices / stepMs,
        bytes,
        parts,
        stages: stages.map(({ stage, parameters, memory, recompute }) => ({
          ...stage,
          parameters,
          memory,
          recompute,
        })),
      }),
    ),
  };
}

async function writeFiles(
  options: Options,
  best: Prediction,
  blocks: readonly Blocks[],
  request: Request,
): Promise<void> {
  const [out, trace] = [options.text('out'), options.text('trace')];
  const cut = blocks.find(({ leaves }) => leaves === best.leaves)!;
  if (out !== undefined)
    await writePlanFile(out, await planFileOf(options.required('model'), best, cut, request));
  if (trace !== undefined) await writeFile(trace, traceEvents(best));
}

/** The plan for `train --plan`. Its bitsId is known when devices are. */
async function planFileOf(
  model: string,
  { plan, stages }: Prediction,
  cut: Blocks,
  { batch, groups, lockstep, devices }: Request,
): Promise<PlanFile> {
  const recompute = stages.map((stage) => stage.recompute);
  const { stages: placed, schedule, ahead } = placementOf(plan, cut, recompute);
  const { within, replicas = 1, sideBySide = 1, shardOptimizer = false } = plan;
  const again = recompute.flat();
  const parts = lockstep ? 1 : cut.leaves;
  return {
    logical: {
      model: { name: model, id: await plannedModelId(model) },
      batch,
      leaves: groups,
      parts,
      batchNorm: lockstep ? 'step' : 'sequence',
      precision: 'f32',
    },
    placement: {
      stages: placed.map(({ layers, devices }) => ({ layers, devices })),
      replicas: parts === 1 ? undefined : within === 'data' ? devices : replicas,
      sideBySide: sideBySide > 1 ? sideBySide : undefined,
      schedule,
      ahead,
      shardOptimizer: shardOptimizer ? true : undefined,
      recompute: again.length === 0 ? undefined : again,
    },
  };
}
