/** Time and memory of a stage: some consecutive blocks on some devices. */
import { share } from '../exchange.ts';
import { type Block, type Blocks, PASSES, type Pass, type PassCost } from './blocks.ts';
import { type Costs, gatherMs, transferMs } from './costs.ts';
import type { Stage } from './partition.ts';
import { chooseBlocks, leastBytes, type RecomputeBlock } from './recompute.ts';

export interface StageCost {
  readonly stage: Stage;
  /** First and last block. */
  readonly layers: string;
  /** Of a microbatch on each device that works on it. */
  readonly passMs: Readonly<Record<Pass, number>>;
  /** Of these, meetings of the stage's devices. */
  readonly meetingMs: Readonly<Record<Pass, number>>;
  /** Names of blocks that are computed again. */
  readonly recompute: readonly string[];
  readonly memory: StageMemory;
  readonly parameters: number;
  readonly updateMs: number;
  /** Bytes that the devices of the stage exchange within it, for a microbatch. */
  readonly meetingBytes: number;
  /** Bytes handed to the next stage, for a microbatch; as much comes back. */
  readonly outputBytes: number;
}

/** Bytes on a device. */
export interface StageMemory {
  readonly state: number;
  readonly activations: number;
  /** At the borders of the stage. */
  readonly borders: number;
  readonly working: number;
  readonly total: number;
}

export interface StageOptions {
  readonly within: 'sequence' | 'data';
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
  const { own, ranks, fraction, choices, state, borders, working } = stageNeeds(cut, stage, options, costs);
  const { inFlight } = options;
  const choice = chooseBlocks(choices, inFlight, costs.device.memoryGb * 1e9 - state - borders - working);
  if (choice === undefined) return undefined;
  const activations = choice.bytes;
  const time = (of: (cost: PassCost) => number): Record<Pass, number> =>
    byPass((pass) => total(own.map((block) => of(block.passes[pass]))));
  const passes = time((cost) => passMs(cost, fraction, ranks, costs));
  return {
    stage,
    layers: own.length === 1 ? own[0]!.name : `${own[0]!.name} … ${own.at(-1)!.name}`,
    passMs: { ...passes, inputGradient: passes.inputGradient + choice.againMs },
    meetingMs: time((cost) => (ranks === 1 ? 0 : gathersMs(cost, ranks, costs))),
    recompute: own.filter((_, i) => choice.again[i]).map(({ name }) => name),
    memory: { state, activations, borders, working, total: state + activations + borders + working },
    parameters: total(own.map((block) => block.parameters)),
    updateMs: total(own.map((block) => block.updateMs)),
    meetingBytes: ranks === 1 ? 0 : total(own.flatMap(gathersOf)),
    outputBytes: stage.to < blocks.length ? blocks[stage.to - 1]!.outputBytes : 0,
  };
}

/** Bytes of a device without which a stage cannot be, each block computed again from its input where that keeps less. */
export function leastStageBytes(cut: Blocks, stage: Stage, options: StageOptions, costs: Costs): number {
  const { choices, state, borders, working } = stageNeeds(cut, stage, options, costs);
  return state + borders + working + leastBytes(choices, options.inFlight);
}

interface StageNeeds {
  readonly own: readonly Block[];
  /** Devices that share each microbatch, and the part of the one with most leaves. */
  readonly ranks: number;
  readonly fraction: number;
  readonly choices: readonly RecomputeBlock[];
  readonly state: number;
  readonly borders: number;
  readonly working: number;
}

function stageNeeds(
  { blocks, leaves }: Blocks,
  stage: Stage,
  { within, inFlight, buffers }: StageOptions,
  costs: Costs,
): StageNeeds {
  const own = blocks.slice(stage.from, stage.to);
  const ranks = within === 'sequence' ? stage.devices : 1;
  const part = share(leaves, ranks - 1, ranks); // the last has most
  const fraction = (part[1] - part[0]) / leaves;
  const outputOf = (index: number): number => fraction * (blocks[index]?.outputBytes ?? 0);
  const [inputBytes, outputBytes] = [
    outputOf(stage.from - 1),
    stage.to < blocks.length ? outputOf(stage.to - 1) : 0,
  ];
  return {
    own,
    ranks,
    fraction,
    choices: own.map((block, i) => ({
      keptBytes: fraction * block.keptBytes,
      inputBytes: i === 0 ? 0 : outputOf(stage.from + i - 1),
      againMs: passMs(block.passes.forward, fraction, ranks, costs),
    })),
    state: total(own.map((block) => block.stateBytes)),
    borders: (inFlight + 2 * buffers) * inputBytes + 2 * buffers * outputBytes,
    working: Math.max(...own.map((block) => block.workingBytes)),
  };
}

/** Time of a microbatch in a stage, all passes, as the pipeline sees it: devices on microbatches of their own divide it. */
export function microbatchMs(
  { stage, passMs, outputBytes }: StageCost,
  within: 'sequence' | 'data',
  costs: Costs,
): number {
  const busy = total(PASSES.map((pass) => passMs[pass])) / (within === 'data' ? stage.devices : 1);
  const travel = outputBytes === 0 ? 0 : transferMs(outputBytes / stage.devices, costs);
  return costs.link.overlap ? Math.max(busy, travel) : busy + 2 * travel;
}

function passMs(cost: PassCost, fraction: number, ranks: number, costs: Costs): number {
  return cost.leavesMs * fraction + cost.onceMs + gathersMs(cost, ranks, costs);
}

function gathersMs({ gathers }: PassCost, ranks: number, costs: Costs): number {
  return total(gathers.map((bytes) => gatherMs(bytes, ranks, costs)));
}

const gathersOf = ({ passes }: Block): number[] => PASSES.flatMap((pass) => passes[pass].gathers);

function byPass(of: (pass: Pass) => number): Record<Pass, number> {
  return { forward: of('forward'), inputGradient: of('inputGradient'), weightGradient: of('weightGradient') };
}

const total = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
