/** What blocks are made of and make: shared by all of them. */
import { multiply, nn, parameter, type Tensor } from '@cohesin/core';
import type { Fields } from './fields.ts';
import type { ActivationName, Shared } from './shared.ts';

/** What flows from block to block: [batch, length, channels], or of a map [batch, length, length, channels]. */
export interface Flow {
  readonly length: number;
  readonly channels: number;
  /** Bases behind one row. */
  readonly binBp: number;
  /** Bases cut off so far at each end. */
  readonly cropBp: number;
  readonly map?: true;
  /** The map whose upper triangle the rows are: its bins, and how many diagonals are left out. */
  readonly triangle?: { readonly length: number; readonly offset: number };
  /** The activation of a head's last layer, which a loss has to fit. */
  readonly activation?: ActivationName;
}

/** A block with what comes out of it. */
export interface Block {
  readonly layer: nn.Layer;
  readonly output: Flow;
}

/** Makes a block from its options in a file; it asks for every option that it knows. */
export type Maker = (options: Fields, shared: Shared, input: Flow) => Block;

/** Blocks one after the other, numbered. */
export function chain(makers: readonly ((flow: Flow) => Block)[], input: Flow): Block {
  let flow = input;
  const layers = makers.map((make) => {
    const { layer, output } = make(flow);
    flow = output;
    return layer;
  });
  return { layer: nn.sequential(layers), output: flow };
}

/** x through every stage that there is. */
export function through(stages: readonly (((x: Tensor) => Tensor) | undefined)[], x: Tensor): Tensor {
  return stages.reduce((y, stage) => stage?.(y) ?? y, x);
}

/** @throws when a residual block would change the shape it is added to. */
export function checkResidual(where: string, input: Flow, output: Pick<Flow, 'length' | 'channels'>): void {
  if (output.length === input.length && output.channels === input.channels) return;
  throw new Error(
    `${where}.residual: ${input.length} rows of ${input.channels} channels become ${output.length} of ${output.channels}; both must be equal: keep the length and leave out filters or units`,
  );
}

/** A rate of a block, its `dropout` unless another is named. */
export function readDropout(options: Fields, name = 'dropout', otherwise = 0): number {
  const rate = options.number(name, otherwise);
  if (rate >= 0 && rate < 1) return rate;
  throw new Error(`${options.where}.${name}: expected a number in [0, 1), found ${rate}`);
}

/** A whole number of at least 0. */
export function readCount(options: Fields, name: string, otherwise?: number): number {
  const count = options.number(name, otherwise);
  if (Number.isInteger(count) && count >= 0) return count;
  throw new Error(`${options.where}.${name}: expected a whole number ≥ 0, found ${count}`);
}

/** A scale per channel that starts at 0, so that a residual branch starts as nothing: basenji's `Scale`. */
export function scaleLayer(channels: number): nn.Layer {
  const weight = parameter([channels]);
  return nn.layer({ weight }, (x: Tensor) => multiply(x, weight));
}
