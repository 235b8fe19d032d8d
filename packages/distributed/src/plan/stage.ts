/** Time and memory of a stage: some consecutive blocks on some devices. */
import { type HeldBytes, mostHeld } from '@cohesin/core';
import { share } from '../exchange.ts';
import type { Pipeline } from '../schedule/action.ts';
import { groupsOf } from '../schedule/pipeline.ts';
import { type Block, type Blocks, PASSES, type Pass, type PassCost } from './blocks.ts';
import { type Costs, giveMs, sumMs, transferMs } from './costs.ts';
import { type Group, meetingMs, neededBytes } from './meeting.ts';
import type { Stage } from './partition.ts';
import { chooseBlocks, leastBytes, type RecomputeBlock, type RecomputeChoice } from './recompute.ts';

export interface StageCost {
  readonly stage: Stage;
  /** First and last block. */
  readonly layers: string;
  /** Of a microbatch, or those that go side by side, on each device that works on it. */
  readonly passMs: Readonly<Record<Pass, number>>;
  /** Of these, meetings of the stage's devices. */
  readonly meetingMs: Readonly<Record<Pass, number>>;
  /** Names of blocks that are computed again. */
  readonly recompute: readonly string[];
  readonly memory: StageMemory;
  readonly parameters: number;
  /** From the end of the backward pass until all devices of the stage have the sums of its gradients. */
  readonly sumMs: number;
  /** With what brings sharded parameters to the others. */
  readonly updateMs: number;
  /** Bytes that leave its devices for sums and sharded parameters, in a step. */
  readonly sumBytes: number;
  /** Bytes that the devices of the stage exchange within it, for a microbatch. */
  readonly meetingBytes: number;
  /** Bytes handed to the next stage, for a microbatch; as much comes back. */
  readonly outputBytes: number;
}

/** Bytes on a device. */
export interface StageMemory {
  readonly state: number;
  readonly activations: number;
  /** What comes into the stage, the step's inputs among it, and what it hands on. */
  readonly borders: number;
  readonly working: number;
  readonly total: number;
}

/** How the devices of a stage share its work. */
export interface Sharing extends Pick<Pipeline, 'within' | 'replicas'> {
  /** Of one stage, microbatches that go through it at once; 1 by default. */
  readonly sideBySide?: number;
  /** Of one stage: each device has the moments of some parameters only, and moves these alone. */
  readonly shardOptimizer?: boolean;
}

export interface StageOptions extends Sharing {
  readonly inFlight: number;
  readonly buffers: number;
}

/** What a stage takes, with what has to be computed again for it to fit; undefined where it does not fit. */
export function stageCost(
  cut: Blocks,
  stage: Stage,
  options: StageOptions,
  costs: Costs,
): StageCost | undefined {
  const { blocks } = cut;
  const needs = stageNeeds(cut, stage, options, costs);
  const { own, group, state, borders } = needs;
  const { inFlight, shardOptimizer = false } = options;
  const { devices } = stage;
  const room = costs.device.memoryGb * 1e9 - state - borders;
  const chosen = chooseFor(needs, inFlight, room);
  if (chosen === undefined) return undefined;
  const { choice, working } = chosen;
  const activations = choice.bytes;
  const time = (of: (cost: PassCost, group: Group, costs: Costs) => number): Record<Pass, number> =>
    byPass((pass) => total(own.map((block) => of(block.passes[pass], group, costs))));
  const passes = time(passMs);
  const parameters = total(own.map((block) => block.parameters));
  const updateMs = total(own.map((block) => block.updateMs));
  return {
    stage,
    layers: own.length === 1 ? own[0]!.name : `${own[0]!.name} … ${own.at(-1)!.name}`,
    passMs: { ...passes, inputGradient: passes.inputGradient + choice.againMs },
    meetingMs: group.ranks === 1 ? byPass(() => 0) : time(gathersMs),
    recompute: own.filter((_, i) => choice.again[i]).map(({ name }) => name),
    memory: { state, activations, borders, working, total: state + activations + borders + working },
    parameters,
    sumMs: addsBeside(cut, own, group, costs)
      ? exposedSumMs(own, group, devices, costs)
      : sumMs(parameters, devices, costs),
    updateMs: shardOptimizer ? updateMs / devices + giveMs(parameters, devices, costs) : updateMs,
    sumBytes: devices === 1 ? 0 : 8 * parameters * devices + (shardOptimizer ? 4 * parameters : 0),
    meetingBytes: group.ranks === 1 ? 0 : total(own.flatMap((block) => gathersOf(block, group.ranks))),
    outputBytes: stage.to < blocks.length ? blocks[stage.to - 1]!.outputBytes : 0,
  };
}

/** What is computed again for a stage to fit so many bytes, and what it then works with. */
function chooseFor(
  { choices, working, workingIfKept }: StageNeeds,
  inFlight: number,
  room: number,
): { readonly choice: RecomputeChoice; readonly working: number } | undefined {
  const kept = inFlight * total(choices.map(({ keptBytes }) => keptBytes));
  const used = kept <= room - workingIfKept ? workingIfKept : working;
  const choice = chooseBlocks(choices, inFlight, room - used);
  return choice && { choice, working: used };
}

/** Bytes of a device without which a stage cannot be, each block computed again from its input where that keeps less. */
export function leastStageBytes(cut: Blocks, stage: Stage, options: StageOptions, costs: Costs): number {
  const { choices, state, borders, working } = stageNeeds(cut, stage, options, costs);
  return state + borders + working + leastBytes(choices, options.inFlight);
}

interface StageNeeds {
  readonly own: readonly Block[];
  readonly group: Group;
  readonly choices: readonly RecomputeBlock[];
  readonly state: number;
  readonly borders: number;
  readonly working: number;
  /** The same if nothing is computed again: then a block has the memory in which later ones keep theirs, before and after. */
  readonly workingIfKept: number;
}

function stageNeeds(
  { blocks, leaves }: Blocks,
  stage: Stage,
  options: StageOptions,
  costs: Costs,
): StageNeeds {
  const { inFlight, buffers, sideBySide = 1, shardOptimizer = false } = options;
  const own = blocks.slice(stage.from, stage.to);
  const ranks = Math.floor(stage.devices / groupsOf(stage.devices, options)); // of the smallest group
  const part = share(leaves, ranks - 1, ranks); // the last has most
  const fraction = (part[1] - part[0]) / leaves;
  const group = { ranks, fraction, leaves: fraction * leaves, sideBySide };
  const held = sideBySide * fraction;
  const inputs = sideBySide * total(own.map((block) => block.inputBytes));
  const outputOf = (index: number): number => held * (blocks[index]?.outputBytes ?? 0);
  const [inputBytes, outputBytes] = [
    outputOf(stage.from - 1),
    stage.to < blocks.length ? outputOf(stage.to - 1) : 0,
  ];
  return {
    own,
    group,
    choices: own.map((block, i) => ({
      keptBytes: held * block.keptBytes,
      inputBytes: i === 0 ? 0 : outputOf(stage.from + i - 1),
      againMs: passMs(block.passes.forward, group, costs),
    })),
    state: total(own.map((block) => block.stateBytes)) - (shardOptimizer ? spared(own, stage.devices) : 0),
    borders: inFlight * inputs + (inFlight + 2 * buffers) * inputBytes + 2 * buffers * outputBytes,
    working: workingBytes(own, leaves, group, () => 0),
    workingIfKept: workingBytes(own, leaves, group, (i) =>
      total(own.slice(i + 1).map(({ keptBytes }) => held * keptBytes)),
    ),
  };
}

/** What blocks work with at most, each beside so many bytes that it has from others' memory of the same kind. */
function workingBytes(
  own: readonly Block[],
  leaves: number,
  { sideBySide, leaves: ownLeaves }: Group,
  sparedBytes: (block: number) => number,
): number {
  const each = own.map(({ working: { device, sequence, leaf } }, i): HeldBytes => {
    const spare = (bytes: number): number => Math.max(0, bytes - sparedBytes(i));
    const ofLeaves = sideBySide * ownLeaves * leaf;
    return leaves === 1
      ? { device: spare(device + ofLeaves), sequence, leaf: 0 }
      : { device, sequence, leaf: spare(ofLeaves) };
  });
  const { device, sequence, leaf } = mostHeld(each);
  return device + sideBySide * sequence + leaf;
}

/** Whether gradients are added over devices while these compute others: of whole sequences, where no stages divide the layers. */
function addsBeside(
  { blocks, leaves }: Blocks,
  own: readonly Block[],
  { ranks }: Group,
  { link }: Costs,
): boolean {
  return link.overlap && leaves === 1 && ranks === 1 && own.length === blocks.length;
}

/** What is left to add when the last sequence has gone backward: sums follow in the order in which layers finish them. */
function exposedSumMs(own: readonly Block[], group: Group, devices: number, costs: Costs): number {
  const latencyMs = sumMs(0, devices, costs);
  let [backward, added] = [0, 0];
  for (const { passes, parameters } of [...own].reverse()) {
    backward += passMs(passes.inputGradient, group, costs) + passMs(passes.weightGradient, group, costs);
    added = Math.max(added, backward) + sumMs(parameters, devices, costs) - latencyMs;
  }
  return latencyMs + added - backward;
}

/** Moments that a device does not have where `devices` share them: whole, the largest first, each to who has least. */
function spared(own: readonly Block[], devices: number): number {
  const moments = own.flatMap(({ momentBytes }) => momentBytes).sort((a, b) => b - a);
  const loads = Array<number>(devices).fill(0);
  for (const bytes of moments) loads[loads.indexOf(Math.min(...loads))]! += bytes;
  return total(moments) - Math.max(...loads);
}

/** Time of a microbatch in a stage, all passes, as the pipeline sees it: groups on microbatches of their own divide it. */
export function microbatchMs(
  { stage, passMs, outputBytes }: StageCost,
  sharing: Sharing,
  costs: Costs,
): number {
  const busy = total(PASSES.map((pass) => passMs[pass])) / groupsOf(stage.devices, sharing);
  const travel = outputBytes === 0 ? 0 : transferMs(outputBytes / stage.devices, costs);
  return costs.link.overlap ? Math.max(busy, travel) : busy + 2 * travel;
}

function passMs(cost: PassCost, group: Group, costs: Costs): number {
  return group.sideBySide * (cost.leavesMs * group.fraction + cost.onceMs) + gathersMs(cost, group, costs);
}

function gathersMs({ gathers }: PassCost, group: Group, costs: Costs): number {
  return total(gathers.map((gather) => meetingMs(gather, group, costs)));
}

const gathersOf = ({ passes }: Block, ranks: number): number[] =>
  PASSES.flatMap((pass) => passes[pass].gathers.map((gather) => neededBytes(gather, ranks)));

function byPass(of: (pass: Pass) => number): Record<Pass, number> {
  return { forward: of('forward'), inputGradient: of('inputGradient'), weightGradient: of('weightGradient') };
}

const total = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
