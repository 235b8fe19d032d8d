/** Reading what a fixture holds: its tensors by group, as numbers, in this library's layouts. */
import { elementCount, type HostTensor, hostTensor, type Safetensors } from '@cohesin/core';

/**
 * How axes are arranged in a file: `channels-last` means the file has them second, `[batch, channels, …]`; `reversed` is
 * how PyTorch and we differ in weights, `[out, in, size]` and `[size, in, out]`, `[out, in]` and `[in, out]`; `weight-2d`
 * is `[out, in, height, width]` and `[height, width, in, out]`.
 */
export type Layout = 'same' | 'channels-last' | 'reversed' | 'weight-2d';

/** The tensors of a group by the rest of their names: `under('conv1d_k5/in/')` gives x, w and b. */
export function under({ tensors }: Safetensors, prefix: string): Map<string, HostTensor> {
  return new Map(
    [...tensors].flatMap(([name, tensor]) =>
      name.startsWith(prefix) ? [[name.slice(prefix.length), tensor] as const] : [],
    ),
  );
}

/** A JSON value of the metadata. @throws when it is missing. */
export function metadataJson({ metadata }: Safetensors, key: string): unknown {
  const text = metadata[key];
  if (text === undefined)
    throw new Error(`the metadata has no '${key}'; it has ${Object.keys(metadata).join(', ')}`);
  return JSON.parse(text);
}

/** An f32 tensor in our layout from one in the file's. */
export function toOurs(tensor: HostTensor, layout: Layout = 'same'): HostTensor {
  const { shape } = tensor;
  const values = Float32Array.from(numbers(tensor));
  const axes = shape.map((_, axis) => axis);
  if (layout === 'same' || shape.length < 2) return hostTensor(shape, values);
  const order = {
    reversed: axes.toReversed(),
    'channels-last': [0, ...axes.slice(2), 1],
    'weight-2d': [2, 3, 1, 0],
  };
  return transposed(hostTensor(shape, values), order[layout]);
}

/** Values as numbers, whatever their dtype. */
export function numbers({ data, dtype }: HostTensor): Float64Array {
  if (dtype === 'f16') throw new Error('f16 references are not read here; store them as f32');
  return Float64Array.from(data as ArrayLike<number | bigint>, Number);
}

/** Axis i of the result is axis `order[i]` of x. */
function transposed(x: HostTensor, order: readonly number[]): HostTensor {
  const shape = order.map((axis) => x.shape[axis]!);
  const strides = x.shape.map((_, axis) => elementCount(x.shape.slice(axis + 1)));
  const values = Float32Array.from({ length: elementCount(shape) }, (_, i) => {
    let rest = i;
    let from = 0;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += (rest % shape[axis]!) * strides[order[axis]!]!;
      rest = Math.floor(rest / shape[axis]!);
    }
    return x.data[from] as number;
  });
  return hostTensor(shape, values);
}
