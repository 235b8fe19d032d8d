/** Layer norm and RMS norm of rows. The mean first and then the deviations from it, never E[x²] − E[x]². */
import type { KernelBody, KernelTarget } from '../kernel.ts';
import { literal } from '../literal.ts';
import { wgsl } from '../wgsl.ts';
import { type LineCode, type Lines, lineKernel } from './line.ts';

export interface RowNorm {
  readonly epsilon: number;
  /** Whether the mean is subtracted: layer norm; otherwise RMS norm. */
  readonly centred: boolean;
}

/** x̂ = (x − mean) / √(variance + epsilon) of each row; with `affine` x̂ · gamma + beta. */
export function rowNormKernel(
  rows: Lines,
  norm: RowNorm & { readonly affine: boolean },
  target: KernelTarget,
): KernelBody {
  const inputs = norm.affine ? ['x', 'gamma', 'beta'] : ['x'];
  return lineKernel(rows, { inputs }, target, (code) => {
    const normal = `${deviation(code, norm)} * inverse`;
    const y = norm.affine ? `(${normal}) * ${code.loadShared('gamma')} + ${code.loadShared('beta')}` : normal;
    return wgsl`
      ${meanOf(code, norm, rows)}
      ${inverseOf(code, norm, rows)}
      ${code.loop(code.store(y))}`;
  });
}

/** dx: with g = dy · gamma, (g − mean(g) − x̂ · mean(g · x̂)) / √(variance + epsilon); mean(g) only if `centred`. */
export function rowNormGradientKernel(rows: Lines, norm: RowNorm, target: KernelTarget): KernelBody {
  return lineKernel(rows, { inputs: ['dy', 'x', 'gamma'] }, target, (code) => {
    const { type, loop, load, loadShared, total, store } = code;
    const scaled = `${load('dy')} * ${loadShared('gamma')}`;
    const shift = norm.centred ? 'meanSlope + ' : '';
    return wgsl`
      ${meanOf(code, norm, rows)}
      ${inverseOf(code, norm, rows)}
      var slopes = ${type}(0.0);
      var products = ${type}(0.0);
      ${loop([`let g = ${scaled};`, 'slopes += g;', `products += g * ${deviation(code, norm)};`])}
      let meanSlope = ${total('slopes', 'plus')} * ${share(rows)};
      let meanProduct = ${total('products', 'plus')} * inverse * ${share(rows)};
      ${loop(store(`(${scaled} - (${shift}${deviation(code, norm)} * inverse * meanProduct)) * inverse`))}`;
  });
}

const share = ({ count }: Lines): string => literal(1 / count);

/** Declares `mean` of a row as its distance from `origin`, the first element: nothing is lost where the mean is large. */
function meanOf({ type, loop, load, first, total }: LineCode, { centred }: RowNorm, rows: Lines): string {
  if (!centred) return '';
  return wgsl`
    let origin = ${first('x')};
    var sums = ${type}(0.0);
    ${loop(`sums += ${load('x')} - origin;`)}
    let mean = ${total('sums', 'plus')} * ${share(rows)};`;
}

const deviation = ({ load }: LineCode, { centred }: RowNorm): string =>
  centred ? `((${load('x')} - origin) - mean)` : load('x');

/** Declares `inverse`, 1 / √(variance + epsilon). */
function inverseOf(code: LineCode, norm: RowNorm, rows: Lines): string {
  const { type, loop, total } = code;
  return wgsl`
    var squares = ${type}(0.0);
    ${loop([`let d = ${deviation(code, norm)};`, 'squares += d * d;'])}
    let inverse = 1.0 / sqrt(${total('squares', 'plus')} * ${share(rows)} + ${literal(norm.epsilon)});`;
}
