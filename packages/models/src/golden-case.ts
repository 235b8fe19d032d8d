/** What a reference fixture of a model needs: its `config` says which model, its tensors say the rest. */
import { type HostTensor, hostTensor, type nn, type Tensor } from '@cohesin/core';
import type { WeightMap } from './weight-map.ts';

export type Tensors = Readonly<Record<string, Tensor>>;

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
  /** Names are those after `weight/` and `buffer/`; `weights.trainable` fits `grad/` and `after3_<optimizer>/`. */
  readonly weights: WeightMap;
  /** Which of the file's running statistics (`bn_running_after1/<convention>/…`) the model moves to. */
  readonly runningStatistics: 'torch' | 'keras';
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
