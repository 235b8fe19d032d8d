/** Weights of a model from a file and into one. */
import { type HostTensor, nn } from '@cohesin/core';
import { readWeights, type WeightFormat, writeWeights } from '@cohesin/io';
import { type WeightMap, weightMap } from './weight-map.ts';

/** The names of a published kind of file, and the format such files have. */
export interface PublishedWeights {
  readonly format: WeightFormat;
  readonly map: WeightMap;
}

/** A model that knows under which names its weights are published. */
export interface Published {
  readonly model: nn.AnyLayer;
  readonly published: () => readonly PublishedWeights[];
}

/** Training state that a checkpoint holds beside the model's own tensors. */
const TRAINING_ONLY = /^(optimizer|data)\//;

/**
 * The weights in a file by dotted path, whatever its format (`readWeights`) and whether it has the published names or the
 * model's own: the names that most of the file's fit are taken.
 *
 * @throws when the file cannot be read, or with every missing, extra and misshapen name; nothing is loaded by halves
 */
export async function loadWeights(built: Published, path: string): Promise<Map<string, HostTensor>> {
  const { tensors } = await readWeights(path);
  try {
    return bestMap(built, tensors).toCohesin(tensors);
  } catch (cause) {
    throw new Error(`${path}: ${(cause as Error).message}`, { cause });
  }
}

/** Weights of some layers of a model, by dotted path. */
export interface LayerWeights {
  readonly weights: ReadonlyMap<string, HostTensor>;
  /** The parameters and running statistics of the model that are not among them: they start anew. */
  readonly fresh: readonly string[];
}

/**
 * The weights of some layers from those of another model that has the same layers, as a trunk below another head.
 *
 * @param tensors under published names or the model's own, beside any others
 * @param layers dotted paths, `*` for any characters: `trunk.*`
 * @throws when a pattern fits no parameter, or with every name that is missing or misshapen; nothing is loaded by halves
 */
export function layerWeights(
  built: Published,
  tensors: ReadonlyMap<string, HostTensor>,
  layers: readonly string[],
): LayerWeights {
  const wanted = new Set(
    layers.flatMap((pattern) => nn.matching(built.model, pattern)).map(({ name }) => name),
  );
  const weights = bestMap(built, tensors, wanted).toCohesin(tensors);
  const fresh = [...nn.parameters(built.model).keys()].filter((path) => !weights.has(path));
  return { weights, fresh };
}

/** The names that most of the tensors have: the model's own, or published ones. */
function bestMap(
  { model, published }: Published,
  tensors: ReadonlyMap<string, HostTensor>,
  wanted?: ReadonlySet<string>,
): WeightMap {
  const maps = [ownWeights(model), ...published().map(({ map }) => map)];
  const candidates = wanted === undefined ? maps : maps.map((map) => map.only(wanted));
  const fitting = candidates.map((map) => map.known(tensors.keys()));
  return candidates[fitting.indexOf(Math.max(...fitting))]!;
}

/**
 * Writes weights under the names that are published in this format, or under the model's own where there are none (not in
 * HDF5, whose names need a layer).
 *
 * @param weights by dotted path
 * @throws with every missing, extra and misshapen name, or as `writeWeights`
 */
export async function saveWeights(
  built: Published,
  path: string,
  { format, weights }: { readonly format: WeightFormat; readonly weights: ReadonlyMap<string, HostTensor> },
): Promise<void> {
  const published = built.published().find((candidate) => candidate.format === format);
  const map = published?.map ?? ownWeights(built.model);
  await writeWeights(path, { format, tensors: map.fromCohesin(weights) });
}

/** The map of a model's weights under its own dotted paths, as checkpoints have them beside training state. */
export function ownWeights(model: nn.AnyLayer): WeightMap {
  return weightMap(model, (name) => ({ name, axes: 'same' }), { ignored: TRAINING_ONLY });
}
