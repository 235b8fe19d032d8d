/** A model and the data of each genome it is trained on. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { HostTensor } from '@cohesin/core';
import { loadCheckpoint } from '@cohesin/distributed';
import { type Dataset, openDataset } from '@cohesin/io';
import {
  type BuiltModel,
  isEnformer,
  isProfileModel,
  jointModels,
  loadWeights,
  modelFromParams,
  namedModel,
  ownWeights,
  type Published,
  type TrainConfig,
} from '@cohesin/models';
import { UsageError } from './command-line.ts';
import { parseJson } from './json-file.ts';
import { fittedModel, profileTask } from './profile-task.ts';
import type { Task } from './task.ts';
import { trackTask } from './track-task.ts';

export interface Study {
  readonly name: string;
  /** Hash of everything that defines the model: a run resumes only with the same. */
  readonly id: string;
  /** What rebuilds the model: a published name, or the content of its file. */
  readonly params: unknown;
  /** Heads of the model, where it has one for each of several genomes. */
  readonly heads?: readonly string[];
  /** All of the model's weights. */
  readonly weights: Published;
  /** The bias model inside a ChromBPNet: it is trained before. */
  readonly bias?: Published;
  readonly train: TrainConfig;
  readonly tasks: readonly Task[];
}

/** What a model is to be trained or evaluated on. */
export interface DataOptions {
  /** A folder, or `human=DIR,mouse=DIR`. */
  readonly data: string;
  readonly decodeThreads?: number | undefined;
  readonly negatives?: string | undefined;
  readonly negativeRatio?: number | undefined;
  /** Predict without the bias model of a ChromBPNet. */
  readonly withoutBias?: boolean;
  /** Build every head of a model of several genomes, not those of the data alone: its weight file has them all. */
  readonly allHeads?: boolean;
}

/** What a checkpoint says of its model. */
export type SavedModel = Pick<Study, 'name' | 'params' | 'heads'>;

/**
 * Builds a model and fits it to its data.
 *
 * @throws when the model is unknown or the sizes differ, with both sides.
 */
export async function openStudy(model: string, options: DataOptions): Promise<Study> {
  const params = await paramsOf(model);
  return studyOf({ name: model, params }, options);
}

/** The study of a checkpoint: the model is rebuilt from what the checkpoint says. */
export function reopenStudy(saved: SavedModel, options: DataOptions): Promise<Study> {
  return studyOf(saved, options);
}

async function studyOf(saved: SavedModel, options: DataOptions): Promise<Study> {
  const genomes = await openGenomes(options);
  if (options.withoutBias && !isProfileModel(saved.params))
    throw new UsageError('--without-bias is for chrombpnet; this model has no bias model inside');
  try {
    if (isProfileModel(saved.params)) return await profileStudy(saved, genomes, options);
    if (options.negatives !== undefined)
      throw new UsageError('--negatives goes with models of the BPNet family');
    const named = [...genomes.keys()].every((genome) => genome !== undefined);
    if (!named && isEnformer(saved.params))
      throw new UsageError(`--data: ${saved.name} has a head for each genome; name it, as human=DIR`);
    return named
      ? await jointStudy(saved, genomes, options)
      : await trackStudy(saved, genomes.get(undefined)!);
  } catch (cause) {
    if (!saved.name.endsWith('.json') || cause instanceof UsageError) throw cause;
    throw new Error(`${saved.name}: ${(cause as Error).message}`, { cause });
  }
}

const NAMED = /^[\w-]+=[^,]+(,[\w-]+=[^,]+)*$/;

/** The data set of each genome; of none that is named, under `undefined`. */
async function openGenomes({ data, decodeThreads }: DataOptions): Promise<Map<string | undefined, Dataset>> {
  const open = (dir: string): Promise<Dataset> => openDataset(dir, { workers: decodeThreads ?? 0 });
  if (!NAMED.test(data)) return new Map([[undefined, await open(data)]]);
  const genomes = new Map<string | undefined, Dataset>();
  for (const part of data.split(',')) {
    const [genome, dir] = part.split(/=(.*)/s) as [string, string];
    if (genomes.has(genome)) throw new UsageError(`--data names ${genome} twice`);
    genomes.set(genome, await open(dir));
  }
  return genomes;
}

/** `Study.id` of a model that is planned without its data: of Enformer, the one with the human head. */
export async function plannedModelId(model: string): Promise<string> {
  const params = await paramsOf(model);
  return idOf(isEnformer(params) ? { params, heads: ['human'] } : params);
}

/** A published model by name, or that of a parameter file. @throws when the model is unknown. */
export async function openModel(model: string): Promise<BuiltModel> {
  return builtOf(await paramsOf(model));
}

async function builtOf(params: unknown): Promise<BuiltModel> {
  return typeof params === 'string' ? namedModel(params) : modelFromParams(params);
}

async function trackStudy({ name, params }: SavedModel, dataset: Dataset): Promise<Study> {
  const built = await builtOf(params);
  const { train } = built;
  const tasks = [trackTask(built, dataset, undefined)];
  return { name, id: idOf(params), params, weights: built, train, tasks };
}

/** One trunk, and a head for each genome: those that the checkpoint has, otherwise those of the data. */
async function jointStudy(
  { name, params, heads: saved }: SavedModel,
  genomes: ReadonlyMap<string | undefined, Dataset>,
  { allHeads = false }: DataOptions,
): Promise<Study> {
  const given = [...genomes.keys()] as string[];
  const joint = jointModels(params, saved ?? (allHeads ? undefined : given));
  const { byHead, train } = joint;
  const heads = [...byHead.keys()];
  const unknown = given.filter((genome) => !heads.includes(genome));
  if (unknown.length > 0)
    throw new UsageError(
      `--data names ${unknown.join(', ')}, but the model has heads of ${heads.join(', ')}`,
    );
  const tasks = given.map((genome) => {
    try {
      return trackTask(byHead.get(genome)!, genomes.get(genome)!, genome);
    } catch (cause) {
      throw new Error(`${genome}: ${(cause as Error).message}`, { cause });
    }
  });
  return { name, id: idOf({ params, heads }), params, heads, weights: joint, train, tasks };
}

async function profileStudy(
  { name, params }: SavedModel,
  genomes: ReadonlyMap<string | undefined, Dataset>,
  { negatives, negativeRatio = 0.1, withoutBias = false }: DataOptions,
): Promise<Study> {
  const dataset = genomes.get(undefined);
  if (dataset === undefined) throw new UsageError(`--data: ${name} has one data set; leave its name out`);
  const built = await fittedModel(params, dataset);
  const background = negatives && { dataset: await openDataset(negatives), ratio: negativeRatio };
  const task = profileTask(built, dataset, { withoutBias, ...(background && { negatives: background }) });
  return {
    name,
    id: idOf(built.params),
    params: built.params,
    weights: built,
    ...(built.bias && { bias: built.bias }),
    train: built.train,
    tasks: [task],
  };
}

function idOf(params: unknown): string {
  return createHash('sha256').update(JSON.stringify(params)).digest('hex');
}

/** A published name as it is, or the content of a parameter file. */
async function paramsOf(model: string): Promise<unknown> {
  if (!model.endsWith('.json')) return model;
  const text = await readFile(model, 'utf8').catch((cause: unknown) => {
    throw new Error(
      `${model}: cannot read the parameter file; give its path, or the name of a published model`,
      { cause },
    );
  });
  return parseJson(text, model);
}

/**
 * The weights of a trained bias model, from a checkpoint or a file, by their names inside a ChromBPNet.
 *
 * @throws UsageError when the model has none inside, or needs it; or as `loadWeights`
 */
export async function biasWeights(
  { name, bias }: Study,
  path: string | undefined,
): Promise<ReadonlyMap<string, HostTensor>> {
  if (path === undefined && bias === undefined) return new Map();
  if (bias === undefined) throw new UsageError(`--bias is for chrombpnet; ${name} has no bias model inside`);
  if (path === undefined)
    throw new UsageError(
      `${name} keeps a bias model that was trained before: give its checkpoint or weight file with --bias (train one with --model chrombpnet-bias on background)`,
    );
  const state = await loadCheckpoint(path).catch(() => undefined);
  const weights =
    state === undefined ? await loadWeights(bias, path) : ownWeights(bias.model).toCohesin(state.state);
  return new Map([...weights].map(([path, value]) => [`bias.${path}`, value]));
}
