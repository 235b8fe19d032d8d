/** Weights under published names and layouts, to and from a model's own. */
import {
  elementCount,
  type HostTensor,
  hostTensor,
  initialState,
  nn,
  type Parameter,
  sameShape,
  shapeText,
} from '@cohesin/core';
import { f16ToF32 } from '@cohesin/io';

/** Where a parameter is found in a published file, and how its axes lie there. */
export interface PublishedName {
  readonly name: string;
  /**
   * `reversed`: PyTorch's [out, in, size] and [out, in] against [size, in, out] and [in, out] here. A list: axis i of the
   * file is axis `axes[i]` here.
   */
  readonly axes: 'same' | 'reversed' | readonly number[];
  /** The shape in the file where it has axes of size 1 that the parameter lacks, or lacks some. */
  readonly fileShape?: readonly number[];
}

/** One parameter under both names; shapes are this library's. */
export interface WeightEntry extends PublishedName {
  readonly path: string;
  readonly shape: readonly number[];
  readonly trainable: boolean;
}

export interface WeightMapOptions {
  /** The published name behind each name of a file, where files differ in them (Keras numbers layers per process). */
  readonly canonical?: (names: readonly string[]) => ReadonlyMap<string, string>;
  /** Names of a file that no model needs; `num_batches_tracked` of PyTorch by default. */
  readonly ignored?: RegExp;
  /** Whether a file may hold what the map does not name; then it is left alone. */
  readonly extra?: 'refused' | 'left';
}

/** Both directions between published tensors and a model's parameters. */
export interface WeightMap {
  readonly entries: readonly WeightEntry[];
  /** The same map of trainable parameters only: what gradients and optimizer states have. */
  readonly trainable: WeightMap;
  /** The same map of these dotted paths only; whatever else a file holds is left alone. */
  only(paths: ReadonlySet<string>): WeightMap;
  /** How many of a file's names are names of this map. */
  known(names: Iterable<string>): number;
  /**
   * Published tensors (f16, f32 or f64) → f32 values by dotted path.
   *
   * @throws with every missing, extra and misshapen name; then nothing is returned.
   */
  toCohesin(tensors: ReadonlyMap<string, HostTensor>): Map<string, HostTensor>;
  /** Values by dotted path → published names and layouts. @throws as `toCohesin`. */
  fromCohesin(tensors: ReadonlyMap<string, HostTensor>): Map<string, HostTensor>;
}

const NOT_NEEDED = /(^|\.)num_batches_tracked$/;

/**
 * The map of a model from the published name of each parameter, asked for in the order of the model. What has none, such
 * as features of positions, keeps its initial value; `running_power` is that of a trained model, 0.
 */
export function weightMap(
  model: nn.AnyLayer,
  publish: (path: string, parameter: Parameter) => PublishedName | undefined,
  options: WeightMapOptions = {},
): WeightMap {
  const entries: WeightEntry[] = [];
  const constants = new Map<string, Parameter>();
  for (const [path, parameter] of nn.parameters(model)) {
    const { shape, trainable } = parameter;
    const published = publish(path, parameter);
    if (published === undefined) constants.set(path, parameter);
    else entries.push({ path, shape, trainable, ...published });
  }
  return mapOf(entries, constants, options);
}

function mapOf(
  entries: readonly WeightEntry[],
  constants: ReadonlyMap<string, Parameter>,
  options: WeightMapOptions,
): WeightMap {
  const names = new Set(entries.map(({ name }) => name));
  return {
    entries,
    get trainable() {
      return mapOf(
        entries.filter(({ trainable }) => trainable),
        new Map(),
        options,
      );
    },
    only: (paths) =>
      mapOf(
        entries.filter(({ path }) => paths.has(path)),
        new Map([...constants].filter(([path]) => paths.has(path))),
        { ...options, extra: 'left' },
      ),
    known: (given) => [...canonical(given, options).values()].filter((name) => names.has(name)).length,
    toCohesin: (tensors) => {
      const given = new Map(
        [...canonical(tensors.keys(), options)].flatMap(([name, known]) =>
          options.extra === 'left' && !names.has(known) ? [] : [[known, tensors.get(name)!] as const],
        ),
      );
      check(
        given,
        entries.map((entry) => ({ name: entry.name, shape: publishedShape(entry) })),
      );
      return new Map([
        ...entries.map((entry) => [entry.path, toOurs(given.get(entry.name)!, entry)] as const),
        ...[...initialState(constants, 0)].map(trained),
      ]);
    },
    fromCohesin: (all) => {
      const tensors = new Map([...all].filter(([path]) => !constants.has(path)));
      check(
        tensors,
        entries.map(({ path, shape }) => ({ name: path, shape })),
      );
      return new Map(entries.map((entry) => [entry.name, toTheirs(tensors.get(entry.path)!, entry)]));
    },
  };
}

/** mᵗ of a debiased average, which no file of weights holds: 0 after the many steps behind published weights. */
const SPENT = /(^|\.)running_power$/;

function trained([path, tensor]: readonly [string, HostTensor]): readonly [string, HostTensor] {
  return SPENT.test(path)
    ? [path, hostTensor(tensor.shape, new Float32Array(tensor.data.length))]
    : [path, tensor];
}

function canonical(
  names: Iterable<string>,
  { canonical: rename, ignored = NOT_NEEDED }: WeightMapOptions,
): ReadonlyMap<string, string> {
  const needed = [...names].filter((name) => !ignored.test(name));
  return rename?.(needed) ?? new Map(needed.map((name) => [name, name]));
}

/** Axis i of the file is axis `order[i]` of the parameter. */
function axisOrder({ shape, axes }: WeightEntry): readonly number[] {
  const own = shape.map((_, axis) => axis);
  if (axes === 'same') return own;
  return axes === 'reversed' ? own.toReversed() : axes;
}

const permutedShape = (entry: WeightEntry): number[] => axisOrder(entry).map((axis) => entry.shape[axis]!);

function publishedShape(entry: WeightEntry): readonly number[] {
  return entry.fileShape ?? permutedShape(entry);
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

const FLOATS: ReadonlySet<string> = new Set(['f16', 'f32', 'f64']);

function toOurs(tensor: HostTensor, entry: WeightEntry): HostTensor {
  const order = axisOrder(entry);
  const inverse = order.map((_, axis) => order.indexOf(axis));
  return hostTensor(entry.shape, permuted(valuesOf(tensor), permutedShape(entry), inverse));
}

function toTheirs(tensor: HostTensor, entry: WeightEntry): HostTensor {
  return hostTensor(publishedShape(entry), permuted(valuesOf(tensor), entry.shape, axisOrder(entry)));
}

function valuesOf({ dtype, data }: HostTensor): Float32Array {
  return dtype === 'f16'
    ? f16ToF32(data as Uint16Array)
    : Float32Array.from(data as Float32Array | Float64Array);
}

/** Values of `shape` with axis i of the result being axis `order[i]`. */
function permuted(values: Float32Array, shape: readonly number[], order: readonly number[]): Float32Array {
  if (order.every((axis, i) => axis === i)) return values;
  const sizes = order.map((axis) => shape[axis]!);
  const strides = order.map((axis) => elementCount(shape.slice(axis + 1)));
  const result = new Float32Array(values.length);
  const index = sizes.map(() => 0);
  let from = 0;
  for (let to = 0; to < result.length; to++) {
    result[to] = values[from]!;
    for (let axis = sizes.length - 1; axis >= 0; axis--) {
      from += strides[axis]!;
      if (++index[axis]! < sizes[axis]!) break;
      from -= sizes[axis]! * strides[axis]!;
      index[axis] = 0;
    }
  }
  return result;
}
