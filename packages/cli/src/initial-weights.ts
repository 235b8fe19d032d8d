/** The weights a run begins with, where it does not begin anew. */
import { stat } from 'node:fs/promises';
import { type HostTensor, nn } from '@cohesin/core';
import { loadCheckpoint } from '@cohesin/distributed';
import { readWeights } from '@cohesin/io';
import { type LayerWeights, layerWeights, type Published } from '@cohesin/models';
import type { Output } from './progress.ts';
import type { From } from './run-options.ts';

/** Weights of a model from a run's folder or a weight file, and where they come from. */
export interface InitialWeights extends LayerWeights {
  readonly source: string;
}

/**
 * Reads what `--from` and `--from-layers` name.
 *
 * @throws when nothing can be read there, a pattern fits no parameter, or a parameter is missing or has another shape.
 */
export async function readInitialWeights(
  model: Published,
  { path, layers = ['*'] }: From,
): Promise<InitialWeights> {
  const { source, tensors } = await open(path);
  try {
    return { source, ...layerWeights(model, tensors, layers) };
  } catch (cause) {
    throw new Error(`--from ${source}: ${(cause as Error).message}`, { cause });
  }
}

async function open(
  path: string,
): Promise<{ readonly source: string; readonly tensors: ReadonlyMap<string, HostTensor> }> {
  const isFolder = await stat(path).then(
    (entry) => entry.isDirectory(),
    () => false,
  );
  if (!isFolder) return { source: path, tensors: (await readWeights(path)).tensors };
  const { dir, state } = await loadCheckpoint(path);
  return { source: dir, tensors: state };
}

/** Says what was taken and what begins anew: each layer that has weights of its own, and all names as `--json`. */
export function announceWeights(
  { model }: Published,
  { source, weights, fresh }: InitialWeights,
  output: Output,
): void {
  const loaded = [...nn.parameters(model).keys()].filter((path) => weights.has(path));
  output.event({ event: 'weights', source, loaded, fresh });
  output.say(`${loaded.length} tensors from ${source}: ${layersText(loaded)}`);
  output.say(`${fresh.length} begin anew${fresh.length > 0 ? `: ${layersText(fresh)}` : ''}`);
}

/** The layers of dotted paths, each once: `trunk.0.conv.weight` is of `trunk.0.conv`. */
function layersText(paths: readonly string[]): string {
  return [...new Set(paths.map((path) => path.slice(0, path.lastIndexOf('.'))))].join(', ');
}
