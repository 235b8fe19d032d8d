/** What a case of an ops fixture is made of: attributes, and how this library computes its outputs. */
import { add, type HostTensor, type Optimizer, type Parameter, type Tensor } from '@cohesin/core';
import type { Layout } from './fixture.ts';

/** Attributes of a case, as its metadata has them. */
export type Attrs = Readonly<Record<string, unknown>>;

/** What a case computes, by the names the file uses. */
export interface Traced {
  readonly outputs: Readonly<Record<string, Tensor>>;
  /** Outputs that are state after the run. */
  readonly state?: Readonly<Record<string, Parameter>>;
  /** What gradients are taken for, where it is not the input of that name. */
  readonly targets?: Readonly<Record<string, Tensor>>;
  /** Parameters of layers with the inputs they start from. */
  readonly starts?: readonly (readonly [Parameter, string])[];
}

/** Runs on a device. */
export interface GraphCase {
  readonly kind: 'graph';
  /** How the file arranges tensors of these names; others are as ours. */
  readonly layouts?: Readonly<Record<string, Layout>>;
  /** Values are compared bit by bit. */
  readonly exact?: boolean;
  /** Whether there is code for these attributes. */
  supports?(attrs: Attrs): boolean;
  /** Inputs as our functions take them. */
  prepare?(inputs: ReadonlyMap<string, HostTensor>, attrs: Attrs): ReadonlyMap<string, HostTensor>;
  trace(x: Inputs, attrs: Attrs): Traced;
}

/** Runs on the host. */
export interface HostCase {
  readonly kind: 'host';
  compute(
    inputs: ReadonlyMap<string, HostTensor>,
    attrs: Attrs,
    name: string,
  ): Readonly<Record<string, ArrayLike<number>>> | undefined;
}

/** Five steps of an optimizer on given gradients. */
export interface OptimizerCase {
  readonly kind: 'optimizer';
  optimizer(attrs: Attrs, name: string): Optimizer | undefined;
}

export type OpCase = GraphCase | HostCase | OptimizerCase;

/** The inputs of a case by name. */
export interface Inputs {
  /** @throws when the file has none of that name. */
  of(name: string): Tensor;
  maybe(name: string): Tensor | undefined;
}

/** A number among the attributes. @throws when it is missing. */
export function numberOf(attrs: Attrs, name: string): number {
  const value = attrs[name];
  if (typeof value !== 'number')
    throw new Error(`attribute ${name} should be a number, found ${JSON.stringify(value)}`);
  return value;
}

/** A case of one output, y. */
export function graph(
  trace: (x: Inputs, attrs: Attrs) => Tensor,
  options: Omit<GraphCase, 'kind' | 'trace'> = {},
): GraphCase {
  return { kind: 'graph', ...options, trace: (x, attrs) => ({ outputs: { y: trace(x, attrs) } }) };
}

/** y with the bias of the case, if it has one. */
export function biased(y: Tensor, x: Inputs): Tensor {
  const bias = x.maybe('b');
  return bias === undefined ? y : add(y, bias);
}
