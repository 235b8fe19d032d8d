import { add, divide, multiply, subtract } from '../ops/arithmetic.ts';
import { foldMoments } from '../ops/moments.ts';
import { affineNormalize, batchNormalize, moments } from '../ops/normalize.ts';
import { reshape, slice } from '../ops/shape.ts';
import { buffer, ones, type Parameter, parameter, zeros } from '../parameter.ts';
import { currentScope, withScope } from '../scope.ts';
import type { Tensor } from '../tensor.ts';
import { assign } from '../trace.ts';
import { type Layer, layer } from './layer.ts';

/**
 * Over what batch norm takes its statistics while training: every group of `sequences` by itself (`sequence`), or the
 * whole step (`step`; then `sequences` only says how much one partial statistic covers).
 */
export interface BatchNormGroup {
  readonly group: 'sequence' | 'step';
  readonly sequences: number;
}

let current: BatchNormGroup = { group: 'step', sequences: 1 };
let frozen: ReadonlySet<Parameter> = new Set();

/**
 * Runs `body` with parameters that keep their values. A batch norm whose scale and shift are both among them uses its
 * running statistics and leaves them as they are, also in training: Keras' `trainable = False`.
 */
export function withFrozen<T>(parameters: ReadonlySet<Parameter>, body: () => T): T {
  const outer = frozen;
  frozen = parameters;
  try {
    return body();
  } finally {
    frozen = outer;
  }
}

/** Runs `body` with batch norm over other groups: how a training step tells all layers of a model at once. */
export function withBatchNorm<T>(group: BatchNormGroup, body: () => T): T {
  const outer = current;
  current = group;
  try {
    return body();
  } finally {
    current = outer;
  }
}

export interface BatchNormOptions {
  readonly channels: number;
  /** Keras 1e-3, PyTorch and Sonnet 1e-5. */
  readonly epsilon?: number;
  /** running ← momentum · running + (1 − momentum) · batch; PyTorch's `momentum` is one minus this. */
  readonly momentum?: number;
  /** Which batch variance the running one averages: Keras biased for sequences and unbiased for maps, PyTorch unbiased. */
  readonly variance?: 'biased' | 'unbiased';
  /**
   * `exponential`: running ← m · running + (1 − m) · batch from where it starts. `debiased`, as Sonnet's moving averages:
   * from 0 and divided by 1 − mᵗ after t steps, so that the first step's statistics count in full.
   */
  readonly average?: 'exponential' | 'debiased';
  /** Start of the scale; `zeros` makes a residual branch start as nothing. */
  readonly gamma?: 'ones' | 'zeros';
}

/**
 * Batch normalisation (Ioffe & Szegedy 2015): x `[batch, …, channels]` → the same shape. Training normalises with the
 * statistics of the group (`withBatchNorm`) and moves the running statistics once a step, by those of all groups
 * together; otherwise, and where it is frozen (`withFrozen`), it normalises with the running statistics. Parts: weight,
 * bias, running_mean, running_var, and running_power (mᵗ, `[1]`) of a debiased average.
 */
export function batchNorm({
  channels,
  epsilon = 1e-3,
  momentum = 0.9,
  variance = 'biased',
  average = 'exponential',
  gamma = 'ones',
}: BatchNormOptions): Layer {
  const power = average === 'debiased' ? buffer([1], { init: ones }) : undefined;
  const parts = {
    weight: parameter([channels], { init: gamma === 'ones' ? ones : zeros }),
    bias: parameter([channels]),
    running_mean: buffer([channels]),
    running_var: buffer([channels], { init: ones }),
    running_power: power,
  };
  return layer(parts, (x: Tensor) => {
    const { weight, bias, running_mean, running_var } = parts;
    const kept = frozen.has(weight) && frozen.has(bias);
    if (!currentScope().training || kept)
      return affineNormalize(x, running_mean, running_var, weight, bias, { epsilon });
    const rows = x.shape.slice(0, -1).reduce((a, b) => a * b, 1);
    const { statistics, all, count } = groupMoments(x, rows);
    withScope({ phase: 'U' }, () => {
      const correction = variance === 'unbiased' ? rows / (rows - 1) : 1;
      const shares = power === undefined ? { old: momentum, new: 1 - momentum } : debiased(power, momentum);
      move(running_mean, all(), { row: 0, shares, scale: 1 });
      move(running_var, all(), { row: 1, shares, scale: correction });
    });
    return batchNormalize(x, statistics, weight, bias, { epsilon, sequences: current.sequences, count });
  });
}

interface GroupMoments {
  /** Means and variances to normalise with, `[groups, 2, channels]`. */
  readonly statistics: Tensor;
  /** Mean and variance of the whole step, `[1, 2, channels]`. */
  all(): Tensor;
  /** Rows behind each of `statistics`. */
  readonly count: number;
}

function groupMoments(x: Tensor, rows: number): GroupMoments {
  const { group, sequences } = current;
  const parts = moments(x, { sequences });
  const folded = once(() => foldMoments(parts));
  if (group === 'step') return { statistics: folded(), all: folded, count: rows };
  const count = rows / parts.shape[0]!;
  if (count === 1) {
    throw new Error(
      `batch norm over groups of ${sequences} sequence with 1 position has one value a channel; take batch-norm statistics over the whole step ('step'), or over more sequences`,
    );
  }
  return { statistics: parts, all: folded, count };
}

function once<T>(make: () => T): () => T {
  let made: { readonly value: T } | undefined;
  return () => {
    made ??= { value: make() };
    return made.value;
  };
}

/** What the next running statistic has of the last one and of the batch; scalars or `[1]`. */
interface Shares {
  readonly old: Tensor | number;
  readonly new: Tensor | number;
}

/**
 * The shares of a moving average h ← m · h + (1 − m) · batch from 0 that is read as h / (1 − mᵗ), and the move of mᵗ⁻¹,
 * which `power` holds, to mᵗ: with a the last value read, h = a · (1 − mᵗ⁻¹).
 */
function debiased(power: Parameter, momentum: number): Shares {
  const next = multiply(power, momentum);
  const whole = subtract(1, next);
  assign(power, next);
  return {
    old: divide(multiply(subtract(1, power), momentum), whole),
    new: divide(1 - momentum, whole),
  };
}

interface Move {
  readonly row: number;
  readonly shares: Shares;
  readonly scale: number;
}

/** Moves a running statistic towards row `row` of all `[1, 2, channels]`. */
function move(running: Parameter, all: Tensor, { row, shares, scale }: Move): void {
  const batch = reshape(slice(all, { from: row, to: row + 1 }), [...running.shape]); // [channel]
  const share = typeof shares.new === 'number' ? shares.new * scale : multiply(shares.new, scale);
  assign(running, add(multiply(running, shares.old), multiply(batch, share)));
}
