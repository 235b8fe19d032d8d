/** Weights of positions along a sequence, largest in its middle. */
import { literal } from '../literal.ts';
import { defineOp, type MapSite, type OpCall, type Rows } from '../op.ts';
import { shapeText, type Tensor } from '../tensor.ts';

export interface PositionWeights {
  /** How many times more the middle counts than the ends; above 1. */
  readonly range: number;
  /** How flat the middle is: an even whole number. */
  readonly exponent: number;
}

/**
 * x [batch, length, …] times the weight of its position, exp(−(d / σ)^exponent) over the largest of them, where d is the
 * distance from the middle and σ makes the ends weigh 1 / range: baskerville's `weight_range` and `weight_exp`.
 *
 * @throws when the range is not above 1 or the exponent not even
 */
export function weightPositions(x: Tensor, { range, exponent }: PositionWeights): Tensor {
  if (!(range > 1)) throw new Error(`weightPositions: the range is ${range}; it must be above 1`);
  if (!(Number.isInteger(exponent) && exponent > 0 && exponent % 2 === 0))
    throw new Error(`weightPositions: the exponent is ${exponent}; it must be an even whole number above 0`);
  return weightOp({ x }, { range, exponent });
}

/** The weights of all positions of a sequence, in float64. */
export function positionWeights(length: number, weights: PositionWeights): Float64Array {
  const { middle, sigma, largest } = curveOf(length, weights);
  return Float64Array.from(
    { length },
    (_, row) => Math.exp(-(((row - middle) / sigma) ** weights.exponent)) / largest,
  );
}

/** An even length has no position in the middle: the largest weight is that half a position beside it. */
function curveOf(
  length: number,
  { range, exponent }: PositionWeights,
): { readonly middle: number; readonly sigma: number; readonly largest: number } {
  const middle = (length - 1) / 2;
  const sigma = middle / Math.log(range) ** (1 / exponent);
  return { middle, sigma, largest: Math.exp(-(((middle % 1) / sigma) ** exponent)) };
}

interface Attrs extends PositionWeights {
  /** Which rows of the whole sequence these are; all of them if not given. */
  readonly own?: Rows;
}

const weightOp: OpCall<readonly ['x'], Attrs> = defineOp<Attrs>()({
  name: 'positionWeight',
  inputs: ['x'],
  axes: 'batch length _ -> batch length _',
  atRows: (attrs, own) => ({ ...attrs, own }),
  infer: ({ x }) => {
    if (x.shape.length === 3) return x;
    throw new Error(`weightPositions: x is ${shapeText(x.shape)}; it must be [batch, length, channels]`);
  },
  kernel: {
    kind: 'map',
    declarations: ({
      exponent,
    }) => `fn positionWeight${exponent}(distance: f32, scale: f32, largest: f32) -> f32 {
  let t = distance * scale;
  let square = t * t;
  return exp(-(${Array.from({ length: exponent / 2 }, () => 'square').join(' * ')})) * largest;
}`,
    expression: ({ x }, attrs, site) => {
      const { middle, sigma, largest } = curveOf(attrs.own?.length ?? site.y.shape[1]!, attrs);
      const distance = `(f32(${rowOf(site, attrs.own)}) - ${literal(middle)})`;
      return `(${x} * positionWeight${attrs.exponent}(${distance}, ${literal(1 / sigma)}, ${literal(1 / largest)}))`;
    },
  },
  gradient: (dy, _, attrs) => ({ x: () => weightOp({ x: dy }, attrs) }),
  reference: ({ x }, attrs) => {
    const [, length, channels] = x.shape as [number, number, number];
    const weights = positionWeights(length, attrs);
    return x.data.map((value, i) => value * weights[Math.floor(i / channels) % length]!);
  },
  samples: [
    { inputs: { x: [2, 11, 3] }, attrs: { range: 8, exponent: 6 } },
    { inputs: { x: [1, 8, 5] }, attrs: { range: 2, exponent: 4 } },
  ],
});

/** WGSL of the row of the whole sequence behind element `i`. */
function rowOf({ i, y }: MapSite, own: Rows | undefined): string {
  const [, length, channels] = y.shape as [number, number, number];
  const row = `i32(${i} / ${channels}u % ${length}u)`;
  return own === undefined ? row : `(${own.start} + i32(frame.leaf) * ${own.size} + ${row})`;
}
