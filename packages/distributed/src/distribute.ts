import {
  type BuildOptions,
  type BuiltShares,
  build,
  buildShared,
  byteLength,
  initialState,
  memoryReport,
  momentsReport,
  type Parameter,
  type Program,
  type StepCounters,
  type Traceable,
  totalBytes,
} from '@cohesin/core';
import { cutOf, dealLeaves } from './deal.ts';
import { exchangeBytes, exchangeMemory } from './exchange.ts';
import { buildEach, checkExchanges, mixedBitsId } from './kinds.ts';
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
import { DistributedState, freshId, inPieces } from './state.ts';

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
  /**
   * Each rank has the moments of some parameters only, moves these alone, and gives the others their new values: ZeRO's
   * first stage (Rajbhandari et al. 2020). Parameters are dealt out whole, by their bytes, so the largest bounds how even
   * that is. In a pipeline the ranks of each stage share the parameters of its layers. Changes memory and what is
   * exchanged, never the bits. Always so on devices that differ (level L2), without stages: each rank would round its own
   * copy of the update.
   */
  readonly shardOptimizer?: boolean;
}

/** A function that the ranks have loaded, with what its state starts from. */
export interface LoadedFunction {
  readonly job: LoadedJob;
  readonly parameters: ReadonlyMap<string, Parameter>;
  readonly counters: StepCounters | undefined;
}

/**
 * Compiles a function once and runs it on every device of a mesh. Leaves of the batch are dealt out in order, gradients
 * are added as integers, every rank applies the same update, or its part of it; or with `pipeline`, each rank has a stage of the layers, with
 * their parameters, and leaves go through the stages one after another. The result has the same bits on any number of
 * devices that are alike and in any stages. Devices that differ have kernels of their own, of the same step.
 *
 * @throws when there are more devices than leaves; when the step cannot be cut into the stages; or when the devices of one
 *   stage differ.
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
  const all = { ...options, state };
  const { job, parameters, counters } =
    pipeline === undefined ? await loadLeaves(fn, all) : await loadStages(fn, { ...all, pipeline });
  const fresh = new Map([...parameters].filter(([name]) => !known.has(name)));
  for (const some of inPieces(fresh, ([, parameter]) => byteLength(parameter)))
    await state.write(initialState(new Map(some), seed));
  return runner(job, mesh, state, { seed, counters });
}

/** Every rank has the whole program, or all but some of the update, and works on some of the leaves. */
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
  const { programs, parameters, counters } = programsOf(fn, { ...options, ...placement });
  const program = programs[0]!;
  declareState(programs, state);
  const memory = (): string => memoryOf(programs, leavesOnDevice * sequences, sequences);
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
        program: programs[rank.index]!,
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
  const deviceBytes = programs.map((one, rank) => {
    const own = new Set(deal.ranks[rank]!.flatMap(({ leaves }) => leaves));
    return totalBytes(one, own.size * sequences, sequences);
  });
  const job = { id, program: described, assigns: assigns(program), sums, ...batch, deviceBytes, hostBytes };
  return { job, parameters, counters };
}

/** The program of each rank. */
function programsOf(
  fn: Traceable,
  options: DistributeOptions & { readonly state: DistributedState },
): BuiltShares {
  const { mesh, state, shardOptimizer = false } = options;
  const ranks = mesh.ranks.length;
  const built = buildEach(mesh, options, (own): BuiltShares => {
    if (shardOptimizer || mesh.level === 'L2')
      return buildShared(fn, { ...options, ...own, ranks, owners: state.owners });
    const { program, ...rest } = build(fn, { ...options, ...own });
    return { ...rest, programs: Array(ranks).fill(program) };
  });
  const programs = built.map((one, rank) => one.programs[rank]!);
  checkExchanges(built.map((one) => one.programs));
  const bitsId = mixedBitsId(programs);
  return { ...built[0]!, programs: programs.map((program) => ({ ...program, bitsId })) };
}

/** Each rank has the state that its program uses. */
function declareState(programs: readonly Program[], state: DistributedState): void {
  const declared = new Map(programs.flatMap((program) => program.state).map((one) => [one.name, one]));
  const trains = programs.some(assigns);
  for (const [name, one] of declared) {
    const ranks = programs.flatMap((program, rank) =>
      program.state.some((held) => held.name === name) ? [rank] : [],
    );
    state.declare(one, ranks, trains);
  }
  for (const { name, owner } of programs[0]!.updateShare?.parameters ?? []) state.owners.set(name, owner);
}

/** The memory plan of the first rank; where ranks share the update, what each has of the moments. */
function memoryOf(programs: readonly Program[], leavesOnDevice: number, sequences: number): string {
  const report = memoryReport(programs[0]!, leavesOnDevice, sequences);
  if (programs[0]!.updateShare === undefined) return report;
  return `rank 0: ${report}\n${momentsReport(programs)}`;
}
