/** Element types of a tensor in host memory and in files. `f16` is kept as raw bits in a `Uint16Array`. */
export type HostDType =
  | 'f64'
  | 'f32'
  | 'f16'
  | 'i64'
  | 'u64'
  | 'i32'
  | 'u32'
  | 'i16'
  | 'u16'
  | 'i8'
  | 'u8'
  | 'bool';

export type TypedArray =
  | Float64Array
  | Float32Array
  | BigInt64Array
  | BigUint64Array
  | Int32Array
  | Uint32Array
  | Int16Array
  | Uint16Array
  | Int8Array
  | Uint8Array;

/** A tensor in host memory: row-major values of one dtype. */
export interface HostTensor {
  readonly shape: readonly number[];
  readonly dtype: HostDType;
  readonly data: TypedArray;
}

/** The number of elements of a tensor of this shape; 1 for a scalar `[]`. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/**
 * An f32 host tensor from values in row-major order.
 *
 * @throws when the number of values is not the product of the shape.
 */
export function hostTensor(shape: readonly number[], values: ArrayLike<number>): HostTensor {
  const expected = elementCount(shape);
  if (values.length !== expected) {
    throw new Error(
      `hostTensor: shape [${shape.join(', ')}] holds ${expected} values but ${values.length} were given`,
    );
  }
  return { shape, dtype: 'f32', data: values instanceof Float32Array ? values : Float32Array.from(values) };
}
