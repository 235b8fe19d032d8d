/** The `train` part of a parameter file: losses, clipping, learning rates. */
import { build, input, nn, trainStep } from '@cohesin/core';
import { interpret } from '@cohesin/core/testing';
import { expect, test } from 'vitest';
import { modelFromParams } from './model.ts';
import { paramsFile } from './params-file.ts';
import { lossOf, optimizerOf } from './training.ts';

test('positions that count differently are refused where they have no sense', () => {
  const loss = (weights: object): (() => unknown) => {
    const { train } = modelFromParams(paramsFile({ train: { loss: 'poisson_mn', ...weights } }));
    return () => lossOf(train)(input('p', [1, 8, 2]), input('t', [1, 8, 2]));
  };
  expect(loss({ weight_range: 8, weight_exp: 6 })).not.toThrow();
  expect(loss({ weight_range: 0.5 })).toThrow(/the range is 0.5; it must be above 1/);
  expect(loss({ weight_range: 8, weight_exp: 3 })).toThrow(
    /the exponent is 3; it must be an even whole number/,
  );
});

test('a loss that rewards differences between tracks takes their weight from the file', () => {
  const { train } = modelFromParams(paramsFile({ train: { loss: 'mse_udot', spec_weight: 2 } }));
  const [p, t] = [input('p', [1, 1, 2]), input('t', [1, 1, 2])];
  const values = new Map([
    [p, { shape: p.shape, data: Float64Array.of(1, 3) }],
    [t, { shape: t.shape, data: Float64Array.of(2, 4) }],
  ]);
  expect(interpret([lossOf(train)(p, t)], values)[0]!.data[0]).toBe(1 - 2 * 1); // squares, less twice the product of ±1
});

test('gradients are clipped by units before they are clipped together', () => {
  const model = nn.linear({ inputs: 2, outputs: 3 });
  const { train } = modelFromParams(paramsFile({ train: { agc_clip: 0.1 } }));
  const step = trainStep({ model, loss: nn.mseLoss, optimizer: optimizerOf(train) });
  const { shaders } = build(step, { inputs: { x: [1, 4, 2], y: [1, 4, 3] }, fuse: false }).program;
  const at = (name: string): number => shaders.findIndex((text) => text.includes(name));
  expect(at('adaptiveScale')).toBeGreaterThan(-1);
  expect(shaders.findLastIndex((text) => text.includes('max(sqrt('))).toBeGreaterThan(at('adaptiveScale'));
});

test('a cycle of the learning rate counts epochs, after a warm-up', () => {
  const cycle = {
    initial_learning_rate: 0.1,
    maximal_learning_rate: 0.5,
    final_learning_rate: 0.01,
    train_epochs_cycle1: 2,
  };
  const rates = (more: object, steps: readonly number[]): number[] => {
    const { train } = modelFromParams(paramsFile({ train: { ...cycle, ...more } }));
    const optimizer = optimizerOf(train, { stepsPerEpoch: 10 });
    return steps.map((step) => optimizer.scalars({ ...optimizer.counters(), step }).learningRate!);
  };
  const expected = [0.1, 0.3, 0.5, 0.3, 0.1, 0.01];
  for (const [i, rate] of rates({}, [0, 10, 20, 30, 40, 41]).entries())
    expect(rate).toBeCloseTo(expected[i]!, 12);
  expect(rates({ warmup_steps: 5 }, [0, 5, 25])).toEqual([0, 0.1, 0.5]);
  expect(() => modelFromParams(paramsFile({ train: { ...cycle, final_learning_rate: null } }))).toThrow(
    /train: final_learning_rate missing; a cycle/,
  );
});

test('a learning rate that validation lowers is read with the names and defaults of PyTorch', () => {
  const plateau = (stated: object) =>
    modelFromParams(paramsFile({ train: { learning_rate: 1e-3, reduce_lr_on_plateau: stated } })).train
      .plateau;
  expect(plateau({})).toEqual({ factor: 0.1, patience: 10, threshold: 1e-4, least: 0 });
  expect(plateau({ factor: 0.5, patience: 5, min_lr: 1e-4 })).toEqual({
    factor: 0.5,
    patience: 5,
    threshold: 1e-4,
    least: 0.1,
  });
  expect(modelFromParams(paramsFile({ train: {} })).train.plateau).toBeUndefined();
  expect(() => plateau({ factor: 2 })).toThrow(
    /reduce_lr_on_plateau.factor: expected a number between 0 and 1, found 2/,
  );
  expect(() => plateau({ mode: 'min' })).toThrow(/reduce_lr_on_plateau: unknown option mode/);
});
