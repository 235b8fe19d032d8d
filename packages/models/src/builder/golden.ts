/** Reference files of models made from parameter files. */
import { nn } from '@cohesin/core';
import type { GoldenCase } from '../golden-case.ts';
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
  const { extra: _, ...built } = builtFromGolden(config);
  return { ...built, loss: ({ pred }, { target }) => nn.mseLoss(pred!, target!) };
}

/** The same JSON without any `dropout`. */
function withoutDropout(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutDropout);
  if (typeof value !== 'object' || value === null) return value;
  const kept = Object.entries(value).filter(([name]) => name !== 'dropout');
  const inner = Object.fromEntries(kept.map(([name, field]) => [name, withoutDropout(field)]));
  const isTransformer = String(inner.name).startsWith('transformer'); // drops by itself unless told not to
  return isTransformer ? { ...inner, dropout: 0, attention_dropout: 0 } : inner;
}
