import { withLayer } from '../scope.ts';
import type { Tensor } from '../tensor.ts';
import { type AnyLayer, type Layer, layer, type Parts } from './layer.ts';

/** A layer, or a plain function such as `relu`. */
export type Stage = Layer | ((x: Tensor) => Tensor);

const isLayer = (stage: Stage): stage is Layer => 'parts' in stage;

/** One stage after the other, under their keys: `sequential({ conv: conv1d({ … }), activation: relu })`; a list numbers them. */
export function sequential(stages: Readonly<Record<string, Stage>> | readonly Stage[]): Layer {
  const list = Object.entries(stages) as [string, Stage][];
  const parts: Parts = Object.fromEntries(
    list.flatMap(([name, stage]): [string, AnyLayer][] => (isLayer(stage) ? [[name, stage]] : [])),
  );
  return layer(parts, (x: Tensor) =>
    list.reduce((y, [name, stage]) => (isLayer(stage) ? stage(y) : withLayer(name, () => stage(y))), x),
  );
}
