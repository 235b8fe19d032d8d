/** What a reference fixture of a model needs: its `config` says which model, its tensors say the rest. */
import { type HostTensor, hostTensor, nn, type Tensor } from '@cohesin/core';
import type { WeightMap } from './weight-map.ts';

export type Tensors = Readonly<Record<string, Tensor>>;

/** How running statistics follow those of batches: `sonnet` debiased from 0, with the biased variance as `keras`. */
export type Convention = 'torch' | 'keras' | 'sonnet';

/** A model as a reference file describes it, dropout off, with names and layouts of that file. */
export interface GoldenCase {
  /** Whose parameters `weights` names. */
  readonly model: nn.AnyLayer;
  /** The file's `input/<name>` (`goldenInputs`) → what the model gives. */
  readonly predict: (inputs: Tensors) => Tensors;
  readonly loss: (prediction: Tensors, inputs: Tensors) => Tensor;
  /** The file's `eval_output/<name>` and `train_output/<name>`; by default the prediction itself. */
  readonly outputs?: (prediction: Tensors, inputs: Tensors) => Tensors;
  /** The file's `extra/<name>`, as far as the model has them. */
  readonly extra?: (prediction: Tensors, inputs: Tensors) => Tensors;
  /** The file's `extra/<name>` that the model is not to have, each with the reason. */
  readonly unlike?: Readonly<Record<string, string>>;
  /** Names are those after `weight/` and `buffer/`; `weights.trainable` fits `grad/` and `after3_<optimizer>/`. */
  readonly weights: WeightMap;
  /** Which of the file's running statistics (`bn_running_after3_<optimizer>/<convention>/…`) the model moves to. */
  readonly runningStatistics: Convention;
}

/** The `input/<name>` among a file's tensors, one-hot sequences and counts too, as f32 in the layouts of the file. */
export function goldenInputs(tensors: ReadonlyMap<string, HostTensor>): Readonly<Record<string, HostTensor>> {
  return Object.fromEntries(
    [...tensors].flatMap(([name, { shape, data }]) => {
      if (!name.startsWith('input/')) return [];
      return [[name.slice('input/'.length), hostTensor(shape, Float32Array.from(data as Uint8Array))]];
    }),
  );
}

/** The layer at a dotted path below another (`trunk.stem`). @throws when there is none. */
export function layerAt(model: nn.AnyLayer, path: string): nn.Layer {
  const found = path.split('.').reduce<unknown>((at, name) => partsOf(at)?.[name], model);
  if (typeof found === 'function') return found as nn.Layer;
  throw new Error(`no layer at ${path}; the model has ${[...nn.parameters(model).keys()].join(', ')}`);
}

/** The parts of a layer, or the members of a list of them. */
function partsOf(at: unknown): Readonly<Record<string, unknown>> | undefined {
  return (Array.isArray(at) ? at : (at as nn.AnyLayer | undefined)?.parts) as
    | Readonly<Record<string, unknown>>
    | undefined;
}
