/** Kernels at the shapes of published models, with the work that each phase must do at least. */
import {
  attentionPool1d,
  conv1d,
  conv2d,
  elementCount,
  geluSigmoid,
  layerNormalize,
  matmul,
  maxPool1d,
  type Parameter,
  parameter,
  relativeAttention,
  softmax,
  type Tensor,
} from '@cohesin/core';
import { det } from './cases.ts';

/** A forward function of tensors that stay on the device. */
export interface ShapeCase {
  readonly name: string;
  /** Of the forward pass; 0 where moving bytes is all the work. */
  readonly flops: number;
  readonly operands: Readonly<Record<string, Parameter>>;
  forward(operands: Readonly<Record<string, Tensor>>): Tensor;
}

function shapeCase<Name extends string>(
  name: string,
  shapes: Readonly<Record<Name, readonly number[]>>,
  flops: number,
  forward: (operands: Readonly<Record<Name, Tensor>>) => Tensor,
): ShapeCase {
  const operands = Object.fromEntries(
    Object.entries<readonly number[]>(shapes).map(([key, shape], i) => [
      key,
      parameter(shape, { name: `${name}.${key}`, init: () => det(elementCount(shape), i + 1, 0.5) }),
    ]),
  );
  return { name, flops, operands, forward };
}

/** `rows` of a longer sequence: the work is proportional to them. */
function convolution(
  name: string,
  rows: number,
  size: number,
  inputs: number,
  outputs: number,
  dilation = 1,
): ShapeCase {
  return shapeCase(
    `${name}: ${size} × ${inputs} → ${outputs}, ${rows} rows`,
    { x: [1, rows, inputs], weight: [size, inputs, outputs] },
    2 * rows * size * inputs * outputs,
    ({ x, weight }) => conv1d(x!, weight!, { dilation }),
  );
}

function map(name: string, size: number, channels: number, outputs: number): ShapeCase {
  return shapeCase(
    `${name}: 3 × 3 × ${channels} → ${outputs}, ${size} × ${size} bins`,
    { x: [1, size, size, channels], weight: [3, 3, channels, outputs] },
    2 * size * size * 9 * channels * outputs,
    ({ x, weight }) => conv2d(x!, weight!, { dilation: 2 }),
  );
}

function linear(name: string, rows: number, inputs: number, outputs: number): ShapeCase {
  return shapeCase(
    `${name}: ${inputs} → ${outputs}, ${rows} rows`,
    { a: [rows, inputs], b: [inputs, outputs] },
    2 * rows * inputs * outputs,
    ({ a, b }) => matmul(a!, b!),
  );
}

const HEADS = 8;
const KEY = 64;
const VALUE = 192;

/** Content and position logits, softmax and weighted values of Enformer's attention, on part of its 1,536 bins. */
function attention(length: number): ShapeCase {
  const distances = 2 * length - 1;
  return shapeCase(
    `Enformer attention: ${HEADS} heads of ${KEY} and ${VALUE}, ${length} bins`,
    {
      query: [1, length, HEADS, KEY],
      key: [1, length, HEADS, KEY],
      value: [1, length, HEADS, VALUE],
      relativeKey: [distances, HEADS, KEY],
      contentBias: [HEADS, KEY],
      positionBias: [HEADS, KEY],
    },
    2 * HEADS * length * length * (2 * KEY + VALUE),
    (operands) => relativeAttention(operands),
  );
}

const ROWS = 2048;
const WIDTH = 768;
const one = (name: string, forward: (x: Tensor) => Tensor): ShapeCase =>
  shapeCase(`${name}: ${ROWS} × ${WIDTH}`, { x: [1, ROWS, WIDTH] }, 0, ({ x }) => forward(x!));

export const SHAPES: readonly ShapeCase[] = [
  convolution('Enformer stem', 8192, 15, 4, 768),
  convolution('Enformer tower 1', 1024, 5, 768, 768),
  convolution('Enformer tower 6', 512, 5, 1280, 1536),
  convolution('Enformer pointwise', 1024, 1, 1536, 1536),
  linear('Enformer feed-forward', 512, 1536, 3072),
  linear('Enformer human head', 128, 3072, 5313),
  attention(256),
  convolution('Akita stem', 16384, 11, 4, 96),
  convolution('Akita trunk', 16384, 5, 96, 96),
  convolution('Akita dilated, by 8', 512, 3, 96, 48, 8),
  map('Akita map, dilated by 2', 128, 48, 24),
  convolution('Basenji2 tower 1', 8192, 5, 288, 339),
  convolution('Basenji2 dilated, by 16', 1024, 3, 768, 384, 16),
  convolution('BPNet dilated, by 64', 2114, 3, 64, 64, 64),
  one('GELU', geluSigmoid),
  one('max pool of 2', (x) => maxPool1d(x, { size: 2 })),
  one('softmax', (x) => softmax(x)),
  shapeCase(
    'attention pool of 2: 2048 × 768',
    { x: [1, ROWS, WIDTH], logits: [1, ROWS, WIDTH] },
    0,
    ({ x, logits }) => attentionPool1d(x!, logits!, { pool: 2 }),
  ),
  shapeCase(
    'layer norm: 2048 × 768',
    { x: [1, ROWS, WIDTH], gamma: [WIDTH], beta: [WIDTH] },
    0,
    ({ x, gamma, beta }) => layerNormalize(x!, gamma!, beta!, { epsilon: 1e-5 }),
  ),
];
