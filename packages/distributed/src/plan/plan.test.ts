import { describe, expect, test } from 'vitest';
import { seeded } from '../schedule/testing.ts';
import type { Block, Blocks, Gather, PassCost } from './blocks.ts';
import { comparePlans } from './compare.ts';
import type { Costs } from './costs.ts';
import { type PartitionProblem, partition, type Stage } from './partition.ts';
import { placementOf, planOf } from './placement.ts';
import { type Plan, predict } from './predict.ts';
import { chooseBlocks, MEMORY_PARTS } from './recompute.ts';
import { traceEvents } from './trace-events.ts';

/** Links that take no time worth mentioning. */
const COSTS: Costs = {
  name: 'test',
  device: { gigaMultiplyAdds: 1, gigabytes: 1e12, launchMs: 1e-9, memoryGb: 1 },
  link: { latencyMs: 1e-9, gigabytes: 1e12, overlap: true },
  sum: { gigabytes: 1e12 },
};

function block(name: string, ms: number, rest: Partial<Block> = {}): Block {
  const pass = (leavesMs: number): PassCost => ({ leavesMs, onceMs: 0, gathers: [] });
  const passes = { forward: pass(ms), inputGradient: pass(ms), weightGradient: pass(ms) };
  const working = { device: 0, sequence: 0, leaf: 0 };
  const none = { updateMs: 0, parameters: 0, keptBytes: 0, inputBytes: 0, working, outputBytes: 0 };
  return { name, passes, ...none, stateBytes: 0, momentBytes: [], ...rest };
}

const even = (count: number, leaves = 1): Blocks => ({
  leaves,
  blocks: Array.from({ length: count }, (_, i) => block(`layer.${i}`, 1)),
});

const inARow = (devices: readonly number[], rest: Partial<Plan> = {}): Plan => {
  const stages = devices.map((count, i) => ({ from: i, to: i + 1, devices: count }));
  return { name: 'test', stages, within: 'data', schedule: '1f1b', ahead: 0, microbatches: 8, ...rest };
};

describe('the partitioner', () => {
  test('finds the same as trying every partition', () => {
    const random = seeded(5);
    for (let round = 0; round < 150; round++) {
      const [blocks, devices] = [2 + Math.floor(random() * 5), 1 + Math.floor(random() * 4)];
      const ms = Array.from({ length: blocks }, () => 1 + Math.floor(random() * 9));
      const kept = ms.map(() => Math.floor(random() * 9));
      const ceiling = 10 + Math.floor(random() * 60);
      const sum = (of: readonly number[], { from, to }: Stage): number =>
        of.slice(from, to).reduce((a, b) => a + b, 0);
      const replicas = 1 + (round % 4);
      const problem: PartitionProblem = {
        blocks,
        devices,
        maxStages: devices,
        groups: (count) => Math.min(replicas, count),
        ahead: round % 3 === 0 ? 1 : 0,
        stageMs: (stage, inFlight) =>
          inFlight * sum(kept, stage) > ceiling
            ? Number.POSITIVE_INFINITY
            : sum(ms, stage) / stage.devices + stage.devices / 8,
      };
      const found = new Map(partition(problem).map((one) => [one.stages.length, one]));
      for (let count = 1; count <= Math.min(devices, blocks); count++) {
        const best = Math.min(...every(problem, count).map((stages) => slowest(problem, stages)));
        expect(found.get(count)?.slowestMs ?? Number.POSITIVE_INFINITY).toBe(best);
        if (found.has(count)) expect(slowest(problem, found.get(count)!.stages)).toBe(best);
      }
    }
  });

  test('chooses what to compute again as trying every choice does', () => {
    const random = seeded(6);
    let [some, none] = [0, 0];
    for (let round = 0; round < 200; round++) {
      const inFlight = 1 + Math.floor(random() * 4);
      const budget = MEMORY_PARTS * inFlight; // so that whole numbers are not rounded
      const blocks = Array.from({ length: 1 + Math.floor(random() * 7) }, () => ({
        keptBytes: Math.floor(random() * 120),
        inputBytes: Math.floor(random() * 90),
        againMs: Math.floor(random() * 20),
      }));
      const largest = Math.max(...blocks.map(({ keptBytes }) => keptBytes));
      let best = Number.POSITIVE_INFINITY;
      for (let choice = 0; choice < 2 ** blocks.length; choice++) {
        const again = (i: number): boolean => ((choice >> i) & 1) === 1;
        const kept = blocks.reduce(
          (sum, { keptBytes, inputBytes }, i) => sum + (again(i) ? inputBytes : keptBytes),
          0,
        );
        const bytes = inFlight * kept + (choice === 0 ? 0 : largest);
        if (bytes <= budget)
          best = Math.min(
            best,
            blocks.reduce((sum, { againMs }, i) => sum + (again(i) ? againMs : 0), 0),
          );
      }
      const found = chooseBlocks(blocks, inFlight, budget);
      expect(found?.againMs ?? Number.POSITIVE_INFINITY).toBe(best);
      if (found !== undefined) expect(found.bytes).toBeLessThanOrEqual(budget);
      if (found === undefined) none++;
      else if (found.again.includes(true)) some++;
    }
    expect(some).toBeGreaterThan(20);
    expect(none).toBeGreaterThan(20);
  });
});

/** All ways to cut blocks into stages and deal out all devices. */
function every({ blocks, devices }: PartitionProblem, count: number, from = 0, left = devices): Stage[][] {
  if (count === 1) return [[{ from, to: blocks, devices: left }]];
  const all: Stage[][] = [];
  for (let to = from + 1; to <= blocks - count + 1; to++)
    for (let own = 1; own <= left - count + 1; own++)
      for (const rest of every({ blocks, devices } as PartitionProblem, count - 1, to, left - own))
        all.push([{ from, to, devices: own }, ...rest]);
  return all;
}

function slowest({ groups, ahead, stageMs }: PartitionProblem, stages: readonly Stage[]): number {
  let [worst, next] = [0, 0];
  for (const stage of [...stages].reverse()) {
    const count = groups(stage.devices);
    const inFlight = 1 + Math.ceil(next / count) + (next > 0 ? ahead : 0);
    next = inFlight * count;
    worst = Math.max(worst, stageMs(stage, inFlight));
  }
  return worst;
}

describe('a predicted step', () => {
  test('of an even pipeline takes as long as the published formulas say', () => {
    const { stepMs } = predict(inARow([1, 1, 1, 1]), even(4), COSTS);
    expect(stepMs).toBeCloseTo(3 * (8 + 4 - 1), 6); // Huang et al. 2019: (m + P − 1) · (F + B)
    const split = predict(
      inARow([1, 1, 1, 1], { schedule: 'zero-bubble', microbatches: 12 }),
      even(4),
      COSTS,
    );
    expect(split.stepMs).toBeCloseTo(3 * 12 + (4 - 1), 6); // Qi et al. 2023: a bubble of (P − 1) · (F + I − W)
  });

  test('divides sequences among the devices of a stage, and rows among those that share them', () => {
    expect(predict(inARow([4], { microbatches: 9 }), even(1), COSTS).stepMs).toBeCloseTo(3 * 3, 6); // the first has 3
    const rows = inARow([4], { within: 'sequence', microbatches: 2 });
    expect(predict(rows, even(1, 10), COSTS).stepMs).toBeCloseTo(3 * 2 * (3 / 10), 6); // 3 of 10 leaves
  });

  test('counts meetings, gradient sums and transfers between stages', () => {
    const costs = { ...COSTS, link: { latencyMs: 2, gigabytes: 1, overlap: false }, sum: { gigabytes: 1 } };
    const pass = { leavesMs: 1, onceMs: 0, gathers: [{ bytes: 3e6, besideMs: 0 }] }; // 3 ms
    const passes = { forward: pass, inputGradient: pass, weightGradient: pass };
    const one: Blocks = { leaves: 2, blocks: [block('a', 0, { passes, parameters: 1e6, updateMs: 7 })] };
    const meeting = predict(inARow([2], { within: 'sequence', microbatches: 1 }), one, costs);
    expect(meeting.stepMs).toBeCloseTo(3 * (0.5 + 2 + 3) + (2 * 2 + 8) + 7 + 2, 6);
    expect(meeting.parts.meetings).toBeCloseTo(15 / meeting.stepMs, 6);
    const spared = (needs: Partial<Gather>): number => {
      const forward = { ...pass, gathers: [{ bytes: 3e6, besideMs: 0, ...needs }] };
      const blocks = [{ ...one.blocks[0]!, passes: { ...passes, forward } }];
      const fewer = predict(inARow([2], { within: 'sequence', microbatches: 1 }), { ...one, blocks }, costs);
      return meeting.stepMs - fewer.stepMs;
    };
    expect(spared({ addressedBytes: 2e6 })).toBeCloseTo(1, 6); // a device needs half of the tiles
    expect(spared({ edgeBytes: 3e6, besideBytes: 1e6 })).toBeCloseTo(0.5, 6); // its own 1.5 MB, and 1 MB beside
    const two: Blocks = { leaves: 1, blocks: [block('a', 1, { outputBytes: 4e6 }), block('b', 1)] };
    expect(predict(inARow([1, 1], { microbatches: 1 }), two, costs).stepMs).toBeCloseTo(
      6 + 2 * (2 + 4 + 4) + 2, // each is also taken
      6,
    );
  });

  test('divides sequences among groups, in one stage and in several', () => {
    const two = inARow([4], { within: 'sequence', replicas: 2, microbatches: 6 });
    expect(predict(two, even(1, 10), COSTS).stepMs).toBeCloseTo(3 * 3 * (5 / 10), 6); // 3 of each group, 5 leaves a device
    const stages = inARow([4, 2], { within: 'sequence', replicas: 2, microbatches: 8 });
    const blocks: Blocks = { leaves: 2, blocks: [block('a', 4), block('b', 2)] };
    // each group has 4, of 3 · 2 ms in either stage; the last stage begins after a forward pass of the first
    expect(predict(stages, blocks, COSTS).stepMs).toBeCloseTo(4 * 6 + 6, 6);
  });

  test('hides the meetings of one half of what goes side by side behind the work of the other', () => {
    const costs = { ...COSTS, link: { latencyMs: 2, gigabytes: 1, overlap: true } };
    const pass = { leavesMs: 4, onceMs: 0, gathers: [{ bytes: 1e6, besideMs: 4 }] }; // 2 ms on each of two devices, 3 to meet
    const passes = { forward: pass, inputGradient: pass, weightGradient: pass };
    const one: Blocks = {
      leaves: 2,
      blocks: [
        block('a', 0, {
          passes,
          keptBytes: 100e6,
          inputBytes: 7e6,
          working: { device: 2e6, sequence: 5e6, leaf: 3e6 },
        }),
      ],
    };
    const of = (sideBySide: number) =>
      predict(inARow([2], { within: 'sequence', sideBySide, microbatches: 4 }), one, costs);
    const end = 2 * 2 + 2; // the gradient sum, and the last meeting
    expect(of(1).stepMs).toBeCloseTo(4 * 3 * (2 + 3) + end, 5);
    expect(of(2).stepMs).toBeCloseTo(4 * 3 * 2 + 2 * 3 * 2 * (3 - 2) + end, 5);
    expect(of(4).stepMs).toBeCloseTo(4 * 3 * 2 + end, 5); // 2 + 2 · 1 ms to meet, 2 · 2 ms to work
    expect(of(4).stages[0]!.memory).toMatchObject({
      activations: 4 * 50e6,
      borders: 4 * 7e6,
      working: 2e6 + 4 * (5e6 + 3e6),
    });
    expect(of(4).bytes.meetings).toBe(of(1).bytes.meetings);
    const busy = { ...costs, link: { ...costs.link, overlap: false } }; // who moves bytes cannot compute: only waits are hidden
    const plan = inARow([2], { within: 'sequence', sideBySide: 4, microbatches: 4 });
    expect(predict(plan, one, busy).stepMs).toBeCloseTo(4 * 3 * (2 + 1) + end, 5);
  });

  test('waits for the slowest of the devices that meet', () => {
    const pass = { leavesMs: 10, onceMs: 0, gathers: [{ bytes: 0, besideMs: 10 }] };
    const passes = { forward: pass, inputGradient: pass, weightGradient: pass };
    const one: Blocks = { leaves: 8, blocks: [block('a', 0, { passes })] };
    const of = (devices: number, jitter: number): number => {
      const plan = inARow([devices], { within: 'sequence', microbatches: 1 });
      return predict(plan, one, { ...COSTS, device: { ...COSTS.device, jitter } }).stepMs;
    };
    expect(of(2, 0.2) - of(2, 0)).toBeCloseTo((3 * 5 * 0.2) / 2, 6); // 4 leaves vary half as much as one
    expect(of(4, 0.2) - of(4, 0)).toBeCloseTo((3 * 2.5 * 0.2 * 1.0294) / 0.5642 / Math.sqrt(2), 6);
  });

  test('adds the gradients of late layers while early ones go backward', () => {
    const costs = { ...COSTS, link: { ...COSTS.link, latencyMs: 1 }, sum: { gigabytes: 1 } };
    const late = { parameters: 3e6 / 8 }; // 3 ms
    const early = { parameters: 1e6 / 8 };
    const blocks: Blocks = { leaves: 1, blocks: [block('a', 1, early), block('b', 1, late)] };
    const of = (cut: Blocks, within: Plan['within']): number =>
      predict(
        { ...inARow([2], { within, microbatches: 2 }), stages: [{ from: 0, to: 2, devices: 2 }] },
        cut,
        costs,
      ).stages[0]!.sumMs;
    expect(of(blocks, 'data')).toBeCloseTo(2 + 1 + 1, 6); // b's end 3 ms after its backward pass, of which a's takes 2
    expect(of({ ...blocks, leaves: 2 }, 'sequence')).toBeCloseTo(2 + 4, 6);
  });

  test('with the optimizer sharded keeps fewer moments, moves new values, and updates a part', () => {
    const costs = { ...COSTS, link: { latencyMs: 1, gigabytes: 1, overlap: false }, sum: { gigabytes: 1 } };
    const momentBytes = [24e6, 8e6, 8e6];
    const rest = { parameters: 5e6, updateMs: 6, stateBytes: 100e6, momentBytes };
    const blocks: Blocks = { leaves: 1, blocks: [block('a', 0, rest)] };
    const of = (shardOptimizer: boolean) => predict(inARow([2], { shardOptimizer }), blocks, costs);
    const [whole, sharded] = [of(false), of(true)];
    expect(whole.stages[0]!.memory.state - sharded.stages[0]!.memory.state).toBe(40e6 - 24e6);
    expect(sharded.bytes.sums - whole.bytes.sums).toBe(4 * 5e6);
    expect(sharded.stepMs - whole.stepMs).toBeCloseTo(1 + 20 - 6 / 2, 6);
  });

  test('is a trace with a row for each rank', () => {
    const trace = JSON.parse(traceEvents(predict(inARow([1, 2]), even(2), COSTS)));
    const spans = trace.traceEvents.filter(({ ph }: { ph: string }) => ph === 'X');
    expect(new Set(spans.map(({ pid }: { pid: number }) => pid)).size).toBe(3);
    expect(spans.filter(({ name }: { name: string }) => name === '0B7')).toHaveLength(1);
  });

  test('that does not fit is refused with the stage and what it needs', () => {
    const large: Blocks = { leaves: 1, blocks: [block('stem', 1, { stateBytes: 2e9 })] };
    expect(() => predict(inARow([1]), large, COSTS)).toThrow(
      'stage 0 (stem to stem) does not fit 1 GB: with each block computed again from its input it needs 2.0 GB, 2.0 GB of them weights, moments and sums',
    );
  });
});

describe('compared plans', () => {
  test('compute blocks again only as far as memory asks for it', () => {
    const blocks: Blocks = {
      leaves: 1,
      blocks: even(4).blocks.map((one) => ({ ...one, keptBytes: 300e6, outputBytes: 1e6 })),
    };
    const { plans } = comparePlans({ blocks: [blocks], devices: 1, microbatches: 4, costs: COSTS });
    expect(plans[0]!.stages[0]!.recompute).toHaveLength(2); // 4 · 300 MB, of which 2 · 300 and 300 to compute again fit
    expect(plans[0]!.stepMs).toBeCloseTo(4 * (12 + 2), 6);
  });

  test('are of every kind, and with the optimizer sharded where that spares memory', () => {
    const moments = { stateBytes: 300e6, momentBytes: Array<number>(8).fill(25e6) };
    const blocks: Blocks = { leaves: 8, blocks: even(8).blocks.map((one) => ({ ...one, ...moments })) };
    const costs = { ...COSTS, device: { ...COSTS.device, memoryGb: 2 } };
    const { plans, refused } = comparePlans({ blocks: [blocks], devices: 6, microbatches: 12, costs });
    const kinds = plans.map(({ plan: { name, replicas } }) => (replicas ? `${name}: ${replicas}` : name));
    expect(kinds.sort()).toEqual([
      'data parallel, optimizer sharded',
      'groups of 2 devices, optimizer sharded: 3',
      'groups of 3 devices, optimizer sharded: 2',
      'pipeline',
      'sequence parallel, optimizer sharded: 1',
      'stages of groups: 2',
      'stages of several devices',
      'stages that share sequences: 1',
    ]);
    expect(refused.map(({ name }) => name).sort()).toEqual([
      'data parallel',
      'groups of 2 devices',
      'groups of 3 devices',
      'sequence parallel',
    ]);
    for (const { plan } of plans)
      expect(
        plan.stages.reduce((sum, { devices }) => sum + devices, 0),
        plan.name,
      ).toBe(6);
  });

  test('refuse what cannot be, with the reason', () => {
    const { plans, refused } = comparePlans({ blocks: [even(4)], devices: 4, microbatches: 2, costs: COSTS });
    expect(plans.map(({ plan: { name } }) => name)).toContain('pipeline');
    expect(refused).toEqual([
      {
        name: 'data parallel',
        reason: '2 sequences cannot be dealt to 4 devices; use a batch of at least 4',
      },
      { name: 'sequence parallel', reason: 'no sequence is cut into 4 leaves or more' },
    ]);
  });

  test('refuse a pipeline where norms need the whole step', () => {
    const compared = comparePlans({
      blocks: [even(4, 8)],
      devices: 4,
      microbatches: 1,
      costs: COSTS,
      lockstep: true,
    });
    expect(compared.plans.map(({ plan: { name } }) => name)).toEqual(['data parallel']);
    expect(compared.refused[0]!.reason).toMatch(
      /^batch norm over the whole step: every norm waits for all sequences/,
    );
  });
});

test('a placement is a plan by names of layers', () => {
  const blocks: Blocks = {
    leaves: 1,
    blocks: ['stem', 'tower.0', 'tower.1', 'tower.2', 'head'].map((name) => block(name, 1)),
  };
  const stages = [
    { from: 0, to: 2, devices: 2 },
    { from: 2, to: 5, devices: 1 },
  ];
  const plan: Plan = { ...inARow([1]), stages };
  const placement = placementOf(plan, blocks, [['stem'], []]);
  expect(placement.stages).toEqual([
    { layers: ['stem', 'tower.0'], devices: 2, recompute: ['stem'] },
    { layers: ['tower.1', 'tower.2', 'head'], devices: 1 },
  ]);
  expect(planOf(placement, blocks, 8, 'test')).toEqual(plan);
  const short = { ...placement, stages: placement.stages.slice(0, 1) };
  expect(() => planOf(short, blocks, 8, 'test')).toThrow('no stage has tower.1; add it to the last one');
});
