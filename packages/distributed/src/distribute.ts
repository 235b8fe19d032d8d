import {
  type BuildOptions,
  build,
  initialState,
  kernelTarget,
  memoryReport,
  type Parameter,
  type Program,
  type StepCounters,
  type Traceable,
} from '@cohesin/core';
import { cutOf, dealLeaves } from './deal.ts';
import { exchangeBytes, exchangeMemory } from './exchange.ts';
import type { Mesh } from './mesh.ts';
import { loadStages, type StagesOptions } from './pipeline.ts';
import {
  assigns,
  batchBytes,
  batchMemory,
  type Distributed,
  type DistributedProgram,
  type LoadedJob,
  runner,
} from './runner.ts';
import { DistributedState, freshId } from './state.ts';

export interface DistributeOptions extends BuildOptions {
  readonly mesh: Mesh;
  readonly seed?: number;
  /** Use the state of another distributed function on the same mesh: training and evaluation share parameters. */
  readonly state?: DistributedState;
  /**
   * Groups of ranks that have sequences of their own, where sequences are cut into parts: the ranks of a group share each
   * of its sequences. By default as few as give every rank a part. In a pipeline, groups of the ranks of each stage, as
   * many of these as it has ranks for; by default one.
   */
  readonly replicas?: number;
  /** Cut the layers into stages that different ranks have, instead of giving every rank all of them. */
  readonly pipeline?: StagesOptions;
}

/** A function that the ranks have loaded, with what its state starts from. */
export interface LoadedFunction {
  readonly job: LoadedJob;
  readonly parameters: ReadonlyMap<string, Parameter>;
  readonly counters: StepCounters | undefined;
}

/**
 * Compiles a function once and runs it on every device of a mesh. Leaves of the batch are dealt out in order, gradients
 * are added as integers, every rank applies the same update; or with `pipeline`, each rank has a stage of the layers, with
 * their parameters, and leaves go through the stages one after another. The result has the same bits on any number of
 * devices and in any stages.
 *
 * @throws when there are more devices than leaves; or when the step cannot be cut into the stages.
 */
export function distribute(
  fn: Traceable,
  options: DistributeOptions & { readonly pipeline?: never },
): Promise<Distributed<Program & DistributedProgram>>;
export function distribute(fn: Traceable, options: DistributeOptions): Promise<Distributed>;
export async function distribute(fn: Traceable, options: DistributeOptions): Promise<Distributed> {
  const { mesh, seed = 0, pipeline } = options;
  const state = options.state ?? new DistributedState(mesh);
  const known = new Set(state.names);
  const own = {
    target: kernelTarget(mesh.info, options.precision),
    bindingLimit: mesh.info.maxBindingBytes,
  };
  const all = { ...own, ...options, state };
  const { job, parameters, counters } =
    pipeline === undefined ? await loadLeaves(fn, all) : await loadStages(fn, { ...all, pipeline });
  const fresh = new Map([...parameters].filter(([name]) => !known.has(name)));
  await state.write(initialState(fresh, seed));
  return runner(job, mesh, state, { seed, counters });
}

/** Every rank has the whole program, and works on some of the leaves. */
async function loadLeaves(
  fn: Traceable,
  options: DistributeOptions & { readonly state: DistributedState },
): Promise<LoadedFunction> {
  const { mesh, state } = options;
  const ranks = mesh.ranks.length;
  const deal = dealLeaves(cutOf(options), ranks, options.replicas);
  const leavesOnDevice = Math.max(...deal.ranks.flat().map(({ leaves }) => leaves.length));
  const most = Math.max(...deal.ranks.map((shares) => shares.length));
  const sequences = Math.min(options.sequencesOnDevice ?? 1, most);
  const placement = { leavesOnDevice, sequencesOnDevice: sequences };
  const { program, parameters, counters } = build(fn, { ...options, ...placement });
  const all = mesh.ranks.map(({ index }) => index);
  for (const one of program.state) state.declare(one, all, assigns(program));
  const memory = (): string => memoryReport(program, leavesOnDevice * sequences, sequences);
  const described: DistributedProgram = { ...program, memory };
  const id = freshId();
  const batch = batchMemory(described);
  const { rendezvous, deadlineMs } = mesh;
  const exchange = exchangeMemory(program, ranks, deal.rounds, sequences);
  await Promise.all(
    mesh.ranks.map((rank) => {
      const job = {
        kind: 'leaves' as const,
        id,
        stateId: state.id,
        program,
        shares: deal.ranks[rank.index]!,
        sequences,
        rendezvous,
        exchange,
        ...batch,
        deadlineMs,
      };
      return rank.call((api) => api.load(job));
    }),
  );
  const sums = program.sums?.tensors.map(({ name }) => name) ?? [];
  const hostBytes = batchBytes(batch) + exchangeBytes(exchange);
  const job = { id, program: described, assigns: assigns(program), sums, ...batch, hostBytes };
  return { job, parameters, counters };
}
