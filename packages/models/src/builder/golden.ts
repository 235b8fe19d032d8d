/** Reference files of models made from parameter files. */
import { nn, parameter, permute, relu, slice, type Tensor, upperTriangular } from '@cohesin/core';
import { type GoldenCase, layerAt, type Tensors } from '../golden-case.ts';
import { modelFromParams } from './model.ts';
import { torchWeights } from './weights.ts';

const STATED = ['seq_length', 'activation', 'gelu', 'norm_type', 'bn_momentum', 'bn_eps', 'trunk'];

/** A reference file's model; its config has the `model` part of a parameter file among other things. */
export function builtFromGolden(config: unknown): GoldenCase {
  const stated = Object.entries(config as Readonly<Record<string, unknown>>).filter(
    ([name]) => STATED.includes(name) || name.startsWith('head'),
  );
  const built = modelFromParams({ model: withoutDropout(Object.fromEntries(stated)) });
  return {
    model: built.model,
    predict: ({ x }) => ({ pred: built.model(x!) }),
    loss: ({ pred }, { target }) => nn.poissonLoss(pred!, target!),
    extra: ({ pred }, { target }) => ({
      eval_loss_poisson_multinomial_basenji_w1: nn.poissonMultinomialLoss(pred!, target!, {
        form: 'basenji',
      }),
      eval_loss_poisson_multinomial_baskerville_w02: nn.poissonMultinomialLoss(pred!, target!, {
        form: 'baskerville',
        totalWeight: 0.2,
      }),
    }),
    weights: torchWeights(built.model),
    runningStatistics: 'keras',
  };
}

/** A reference file's Borzoi: baskerville's Poisson-multinomial loss. */
export function borzoiFromGolden(config: unknown): GoldenCase {
  const { loss: _loss, extra: _extra, ...built } = builtFromGolden(config);
  const options = { form: 'baskerville', totalWeight: 0.2 } as const;
  return { ...built, loss: ({ pred }, { target }) => nn.poissonMultinomialLoss(pred!, target!, options) };
}

/** A reference file's Akita: the mean squared error. */
export function akitaFromGolden(config: unknown): GoldenCase {
  const built = builtFromGolden(config);
  const { target_crop: crop, diagonal_offset: offset } = config as Readonly<Record<string, number>>;
  return {
    ...built,
    loss: ({ pred }, { target }) => nn.mseLoss(pred!, target!),
    extra: (_, { x }) => {
      const inside = akitaInside(built.model as nn.Layer, x!);
      return { ...inside, ...trianglePlaces(inside.map_eval!.shape.at(-1)! - 2 * crop!, offset!) };
    },
  };
}

const CROPPING = 5; // the place of `cropping_2d` among Akita's blocks on maps

/** What the file keeps of Akita's inside: the bins, and the first sequence's map before it is cropped. */
function akitaInside(model: nn.Layer, x: Tensor): Tensors {
  const bins = relu(layerAt(model, 'trunk')(x)); // [batch, bin, channel]
  const stages = Array.from({ length: CROPPING }, (_, i) => layerAt(model, `head.${i}`));
  const map = stages.reduce((y, stage) => stage(y), bins); // [batch, bin, bin, channel]
  return {
    trunk_eval: permute(bins, [0, 2, 1]),
    map_eval: permute(slice(map, { from: 0, to: 1, axis: 0 }), [0, 3, 1, 2]),
  };
}

/** The same JSON without any `dropout`. */
function withoutDropout(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutDropout);
  if (typeof value !== 'object' || value === null) return value;
  const kept = Object.entries(value).filter(([name]) => name !== 'dropout');
  const inner = Object.fromEntries(kept.map(([name, field]) => [name, withoutDropout(field)]));
  const isTransformer = String(inner.name).startsWith('transformer'); // drops by itself unless told not to
  return isTransformer ? { ...inner, dropout: 0, attention_dropout: 0, position_dropout: 0 } : inner;
}

/** Rows and columns of the pairs of a triangle of `length` bins, from maps that hold their own rows and columns. */
function trianglePlaces(length: number, offset: number): Tensors {
  const places = (name: string, place: (i: number) => number): Tensor => {
    const map = parameter([1, length, length, 1], {
      name,
      init: () => Float32Array.from({ length: length ** 2 }, (_, i) => place(i)),
    });
    return upperTriangular(map, { offset });
  };
  const [row, column] = [(i: number) => Math.floor(i / length), (i: number) => i % length];
  return { triu_rows: places('rows', column), triu_cols: places('columns', row) }; // the mirror image, as `upperTriangular` has it
}
