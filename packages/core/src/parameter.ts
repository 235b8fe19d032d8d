import { type AnyOp, declaredOp, defineOp } from './op.ts';
import { type DType, type Spec, Tensor } from './tensor.ts';

/** Fills a new parameter: f32 values in row-major order from a seed of its own. */
export type Initializer = (shape: readonly number[], seed: number) => Float32Array;

defineOp<{ name: string; spec: Spec }>()({
  name: 'input',
  inputs: [],
  infer: (_, attrs) => attrs.spec,
  kernel: { kind: 'source' },
});
defineOp<{ spec: Spec }>()({
  name: 'parameter',
  inputs: [],
  infer: (_, attrs) => attrs.spec,
  kernel: { kind: 'source' },
});
defineOp<{ value: number }>()({
  name: 'constant',
  inputs: [],
  infer: () => ({ shape: [], dtype: 'f32' }),
  kernel: { kind: 'source' },
});
defineOp<{ name: string }>()({
  name: 'scalar',
  inputs: [],
  infer: () => ({ shape: [], dtype: 'f32' }),
  kernel: { kind: 'source' },
});

const at = { path: '', phase: 'F' } as const;
const source = (name: string, attrs: unknown, spec: Spec): Tensor =>
  new Tensor(declaredOp(name), {}, attrs, spec, at);

/** A value handed to the compiled function at each call; its leading axis is the batch. */
export function input(name: string, shape: readonly number[], dtype: DType = 'f32'): Tensor {
  return source('input', { name, spec: { shape, dtype } }, { shape, dtype });
}

/** A number known when tracing. */
export function constant(value: number): Tensor {
  return source('constant', { value }, { shape: [], dtype: 'f32' });
}

/** A number that changes from step to step (learning rate, bias correction): passed at each call, never baked in. */
export function scalar(name: string): Tensor {
  return source('scalar', { name }, { shape: [], dtype: 'f32' });
}

/** A value that lives on devices between calls and changes only through `assign`. */
export class Parameter extends Tensor {
  /** The dotted path in its model, given by `layer` or by hand; what checkpoints call it. */
  name: string;
  readonly initializer: Initializer;
  /** Whether the optimizer updates it; running statistics and optimizer moments are not trainable. */
  readonly trainable: boolean;
  /** Of a ridge penalty l2 · Σ w² that training adds to the loss, as Keras' `kernel_regularizer`. */
  l2 = 0;

  constructor(name: string, shape: readonly number[], initializer: Initializer, trainable: boolean) {
    const op: AnyOp = declaredOp('parameter');
    super(op, {}, { spec: { shape, dtype: 'f32' } }, { shape, dtype: 'f32' }, at);
    this.name = name;
    this.initializer = initializer;
    this.trainable = trainable;
  }
}

/** A trainable parameter; a layer names it by its part, elsewhere `name` is needed. */
export function parameter(
  shape: readonly number[],
  { init = zeros, name = '' }: { init?: Initializer; name?: string } = {},
): Parameter {
  return new Parameter(name, shape, init, true);
}

/** State that is carried from step to step but not trained: running statistics, optimizer moments. */
export function buffer(
  shape: readonly number[],
  { init = zeros, name = '' }: { init?: Initializer; name?: string } = {},
): Parameter {
  return new Parameter(name, shape, init, false);
}

export const zeros: Initializer = (shape) => new Float32Array(shape.reduce((a, b) => a * b, 1));
export const ones: Initializer = (shape) => zeros(shape, 0).fill(1);
