/** What a reference fixture of a model needs: its `config` says which model, its tensors say the rest. */
import { type HostTensor, hostTensor, type nn, type Tensor } from '@cohesin/core';
import type { WeightMap } from './weight-map.ts';

/** A model as a reference file describes it, dropout off, with names and layouts of that file. */
export interface GoldenCase {
  /** x [batch, length, 4] → what the loss takes. */
  readonly model: nn.Layer;
  readonly loss: nn.Loss;
  /** The file's `eval_output/<name>` and `train_output/<name>` from the model's prediction. */
  readonly outputs: (prediction: Tensor) => Readonly<Record<string, Tensor>>;
  /** The file's scalar `extra/<name>` from the model's prediction and the target. */
  readonly extra?: (prediction: Tensor, target: Tensor) => Readonly<Record<string, Tensor>>;
  /** The file's `input/<name>` → f32 inputs x and y of the model and the loss. */
  readonly inputs: (tensors: ReadonlyMap<string, HostTensor>) => {
    readonly x: HostTensor;
    readonly y: HostTensor;
  };
  /** Names are those after `weight/` and `buffer/`; `weights.trainable` fits `grad/` and `after3_<optimizer>/`. */
  readonly weights: WeightMap;
  /** Which of the file's running statistics (`bn_running_after1/<convention>/…`) the model moves to. */
  readonly runningStatistics: 'torch' | 'keras';
}

/** `x` (one-hot, u8) and `target` of a file as f32. @throws when one is not there. */
export function sequenceAndTarget(tensors: ReadonlyMap<string, HostTensor>): {
  readonly x: HostTensor;
  readonly y: HostTensor;
} {
  const f32 = (name: string): HostTensor => {
    const found = tensors.get(name);
    if (found !== undefined) return hostTensor(found.shape, Float32Array.from(found.data as Uint8Array));
    throw new Error(`the fixture has no input '${name}'; it has ${[...tensors.keys()].join(', ')}`);
  };
  return { x: f32('x'), y: f32('target') };
}

/** `x` of a file, and several targets `[batch, bins, tracks]` beside each other as y. @throws when one is not there. */
export function concatTargets(
  tensors: ReadonlyMap<string, HostTensor>,
  names: readonly string[],
): { readonly x: HostTensor; readonly y: HostTensor } {
  const each = names.map((name) => sequenceAndTarget(new Map([...tensors, ['target', tensors.get(name)!]])));
  const [{ x, y: first }] = each as [(typeof each)[number]];
  const [batch, bins] = first.shape as [number, number];
  const widths = each.map(({ y }) => y.shape[2]!);
  const tracks = widths.reduce((a, b) => a + b, 0);
  const values = new Float32Array(batch * bins * tracks);
  let from = 0;
  for (const [k, { y }] of each.entries()) {
    for (let row = 0; row < batch * bins; row++) {
      const own = (y.data as Float32Array).subarray(row * widths[k]!, (row + 1) * widths[k]!);
      values.set(own, row * tracks + from);
    }
    from += widths[k]!;
  }
  return { x, y: hostTensor([batch, bins, tracks], values) };
}
