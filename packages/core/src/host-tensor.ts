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

const ARRAYS = {
  f64: Float64Array,
  f32: Float32Array,
  f16: Uint16Array,
  i64: BigInt64Array,
  u64: BigUint64Array,
  i32: Int32Array,
  u32: Uint32Array,
  i16: Int16Array,
  u16: Uint16Array,
  i8: Int8Array,
  u8: Uint8Array,
  bool: Uint8Array,
} as const satisfies Record<HostDType, unknown>;

/** The dtypes that a tensor in host memory can have. */
export const HOST_DTYPES: readonly HostDType[] = Object.keys(ARRAYS) as HostDType[];

/** Bytes of one element. */
export function elementBytes(dtype: HostDType): number {
  return ARRAYS[dtype].BYTES_PER_ELEMENT;
}

/**
 * The tensor whose values are these little-endian bytes; it shares them.
 *
 * @throws RangeError when there are too few bytes, or they do not start at a multiple of the element size
 */
export function tensorFromBytes(
  shape: readonly number[],
  dtype: HostDType,
  bytes: Uint8Array<ArrayBuffer>,
): HostTensor {
  return { shape, dtype, data: new ARRAYS[dtype](bytes.buffer, bytes.byteOffset, elementCount(shape)) };
}

/** The f32 tensor whose values are the bfloat16 of these little-endian bytes; exact. */
export function tensorFromBFloat16(shape: readonly number[], bytes: Uint8Array<ArrayBuffer>): HostTensor {
  const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, elementCount(shape));
  const words = Uint32Array.from(halves, (bits) => bits << 16);
  return { shape, dtype: 'f32', data: new Float32Array(words.buffer) };
}
