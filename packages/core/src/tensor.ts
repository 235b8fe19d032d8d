import { elementCount } from './host-tensor.ts';
import type { AnyOp } from './op.ts';
import { currentScope, type Phase } from './scope.ts';

/** Element types on a device. `f16` and `u8` are storage only: kernels read them as f32. */
export type DType = 'f32' | 'u32' | 'i32' | 'f16' | 'u8';

/** Shape and element type of a tensor. */
export interface Spec {
  readonly shape: readonly number[];
  readonly dtype: DType;
}

let created = 0;

/** A node of the graph: what to compute, from what. It never holds data. */
export class Tensor implements Spec {
  /** Order of creation: a node's inputs come before it, and what belongs together lies together. */
  readonly id: number;
  readonly op: AnyOp;
  readonly inputs: Readonly<Record<string, Tensor>>;
  readonly attrs: unknown;
  readonly shape: readonly number[];
  readonly dtype: DType;
  /** The layer that made it, dotted: `trunk.3.conv`. */
  readonly path: string;
  readonly phase: Phase;

  constructor(
    op: AnyOp,
    inputs: Readonly<Record<string, Tensor>>,
    attrs: unknown,
    spec: Spec,
    at: { readonly path: string; readonly phase: Phase } = currentScope(),
  ) {
    this.id = created++;
    this.op = op;
    this.inputs = inputs;
    this.attrs = attrs;
    this.shape = spec.shape;
    this.dtype = spec.dtype;
    this.path = at.path;
    this.phase = at.phase;
  }

  toString(): string {
    return `${this.path === '' ? '' : `${this.path}: `}${this.op.name} [${this.shape.join(', ')}]`;
  }
}

/** Bytes of a tensor on a device, rounded up to whole 4-byte words. */
export function byteLength({ shape, dtype }: Spec): number {
  const bytesPerElement = dtype === 'u8' ? 1 : dtype === 'f16' ? 2 : 4;
  return Math.ceil((elementCount(shape) * bytesPerElement) / 4) * 4;
}

/** `[2, 37, 4]` as text. */
export function shapeText(shape: readonly number[]): string {
  return `[${shape.join(', ')}]`;
}

export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, i) => size === b[i]);
}
