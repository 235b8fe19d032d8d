/** Weights under published names and layouts, to and from a model's own. */
import {
  elementCount,
  type HostTensor,
  hostTensor,
  nn,
  type Parameter,
  sameShape,
  shapeText,
} from '@cohesin/core';

/** Where a parameter is found in a published file, and how its axes lie there. */
export interface PublishedName {
  readonly name: string;
  /** `reversed`: PyTorch's [out, in, size] and [out, in] against [size, in, out] and [in, out] here. */
  readonly axes: 'same' | 'reversed';
}

/** One parameter under both names; shapes are this library's. */
export interface WeightEntry extends PublishedName {
  readonly path: string;
  readonly shape: readonly number[];
  readonly trainable: boolean;
}

/** Both directions between published tensors and a model's parameters. */
export interface WeightMap {
  readonly entries: readonly WeightEntry[];
  /** The same map of trainable parameters only: what gradients and optimizer states have. */
  readonly trainable: WeightMap;
  /**
   * Published tensors → f32 values by dotted path.
   *
   * @throws with every missing, extra and misshapen name; then nothing is returned.
   */
  toCohesin(tensors: ReadonlyMap<string, HostTensor>): Map<string, HostTensor>;
  /** Values by dotted path → published names and layouts. @throws as `toCohesin`. */
  fromCohesin(tensors: ReadonlyMap<string, HostTensor>): Map<string, HostTensor>;
}

/** The map of a model from the published name of each parameter, asked for in the order of the model. */
export function weightMap(
  model: nn.AnyLayer,
  publish: (path: string, parameter: Parameter) => PublishedName,
): WeightMap {
  return mapOf(
    [...nn.parameters(model)].map(([path, parameter]) => {
      const { shape, trainable } = parameter;
      return { path, shape, trainable, ...publish(path, parameter) };
    }),
  );
}

function mapOf(entries: readonly WeightEntry[]): WeightMap {
  return {
    entries,
    get trainable() {
      return mapOf(entries.filter(({ trainable }) => trainable));
    },
    toCohesin: (tensors) => {
      check(
        tensors,
        entries.map((entry) => ({ name: entry.name, shape: publishedShape(entry) })),
      );
      return new Map(entries.map((entry) => [entry.path, relaid(tensors.get(entry.name)!, entry)]));
    },
    fromCohesin: (tensors) => {
      check(
        tensors,
        entries.map(({ path, shape }) => ({ name: path, shape })),
      );
      return new Map(entries.map((entry) => [entry.name, relaid(tensors.get(entry.path)!, entry)]));
    },
  };
}

function publishedShape({ axes, shape }: WeightEntry): readonly number[] {
  return axes === 'same' ? shape : shape.toReversed();
}

interface Expected {
  readonly name: string;
  readonly shape: readonly number[];
}

function check(tensors: ReadonlyMap<string, HostTensor>, expected: readonly Expected[]): void {
  const known = new Set(expected.map(({ name }) => name));
  const faults = expected.flatMap(({ name, shape }) => {
    const found = tensors.get(name);
    if (found === undefined) return [`missing ${name} ${shapeText(shape)}`];
    if (!sameShape(found.shape, shape))
      return [`${name} is ${shapeText(found.shape)} but the model has ${shapeText(shape)}`];
    return FLOATS.has(found.dtype) ? [] : [`${name} holds ${found.dtype}; convert it to f32`];
  });
  const extra = [...tensors.keys()].filter((name) => !known.has(name)).map((name) => `unexpected ${name}`);
  const all = [...faults, ...extra];
  if (all.length === 0) return;
  throw new Error(`weights do not fit the model, and none was loaded:\n  ${all.join('\n  ')}`);
}

const FLOATS: ReadonlySet<string> = new Set(['f32', 'f64']);

function relaid({ shape, data }: HostTensor, { axes }: WeightEntry): HostTensor {
  const values = Float32Array.from(data as Float32Array | Float64Array);
  return axes === 'same'
    ? hostTensor(shape, values)
    : hostTensor(shape.toReversed(), withReversedAxes(values, shape));
}

/** The transpose of any number of axes: what was at [i, j, k] of `shape` is then at [k, j, i]. */
function withReversedAxes(values: Float32Array, shape: readonly number[]): Float32Array {
  const reversed = new Float32Array(elementCount(shape));
  const strides = shape.map((_, axis) => elementCount(shape.slice(0, axis))); // of the result
  const index = shape.map(() => 0);
  for (const value of values) {
    reversed[index.reduce((at, i, axis) => at + i * strides[axis]!, 0)] = value;
    for (let axis = shape.length - 1; axis >= 0 && ++index[axis]! === shape[axis]; axis--) index[axis] = 0;
  }
  return reversed;
}
