/** Smoothing of contact maps, a stage of Akita's targets. */

export interface SmoothOptions {
  readonly height: number;
  readonly width: number;
  /** Standard deviation σ in bins; the kernel reaches 4σ to each side. */
  readonly deviation: number;
}

/**
 * A map [height, width], rows first, convolved with a Gaussian that is sampled at whole bins and sums to 1; zeros
 * outside. As astropy's `convolve(map, Gaussian2DKernel(σ, x_size=8σ+1))` on a map without NaN. In float64.
 *
 * @throws when the values are not height × width, or the deviation is not positive.
 */
export function smoothMap(
  values: ArrayLike<number>,
  { height, width, deviation }: SmoothOptions,
): Float64Array {
  if (values.length !== height * width || !(deviation > 0)) {
    throw new Error(
      `smoothMap: ${values.length} values for ${height} × ${width} = ${height * width}, deviation ${deviation}; the two counts must be equal, the deviation positive`,
    );
  }
  const weights = gaussian(deviation);
  const alongRows = convolved(values, weights, { lines: height, stride: width, length: width, step: 1 });
  return convolved(alongRows, weights, { lines: width, stride: 1, length: height, step: width });
}

/** Weights at −reach … reach. The Gaussian of two axes is the product of two of these, sampled and normalised alike. */
function gaussian(deviation: number): Float64Array {
  const reach = Math.floor(4 * deviation);
  const weights = Float64Array.from({ length: 2 * reach + 1 }, (_, i) =>
    Math.exp(-((i - reach) ** 2) / (2 * deviation ** 2)),
  );
  const total = weights.reduce((sum, weight) => sum + weight);
  return weights.map((weight) => weight / total);
}

/** How the lines of an axis lie in memory: line l begins at l · stride and its values are `step` apart. */
interface Lines {
  readonly lines: number;
  readonly stride: number;
  readonly length: number;
  readonly step: number;
}

function convolved(
  values: ArrayLike<number>,
  weights: Float64Array,
  { lines, stride, length, step }: Lines,
): Float64Array {
  const reach = (weights.length - 1) / 2;
  const out = new Float64Array(values.length);
  for (let line = 0; line < lines; line++) {
    for (let i = 0; i < length; i++) {
      let total = 0;
      for (let k = Math.max(0, i - reach); k <= Math.min(length - 1, i + reach); k++)
        total += weights[k - i + reach]! * values[line * stride + k * step]!;
      out[line * stride + i * step] = total;
    }
  }
  return out;
}
