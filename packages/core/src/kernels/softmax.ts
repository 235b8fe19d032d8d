/** Softmax and what belongs to it, along the lines of a tensor. The largest element is subtracted before any exponential. */
import type { KernelBody, KernelTarget } from '../kernel.ts';
import { literal } from '../literal.ts';
import { wgsl } from '../wgsl.ts';
import { type LineCode, type Lines, lineKernel } from './line.ts';

const LOWEST = literal(-3.4028234663852886e38); // the most negative finite f32

/** e^x / Σ e^x along each line of x. */
export function softmaxKernel(lines: Lines, target: KernelTarget): KernelBody {
  return lineKernel(
    lines,
    { inputs: ['x'] },
    target,
    (code) => wgsl`
      ${exponentialSum(code)}
      let share = 1.0 / weight;
      ${code.loop(code.store(`exp(${code.load('x')} - high) * share`))}`,
  );
}

/** x − log Σ e^x along each line of x. */
export function logSoftmaxKernel(lines: Lines, target: KernelTarget): KernelBody {
  return lineKernel(
    lines,
    { inputs: ['x'] },
    target,
    (code) => wgsl`
      ${exponentialSum(code)}
      let logWeight = ${code.log('weight')};
      ${code.loop(code.store(`(${code.load('x')} - high) - logWeight`))}`,
  );
}

/** log Σ e^x along each line of x: one value a line. */
export function logSumExpKernel(lines: Lines, target: KernelTarget): KernelBody {
  return lineKernel(
    lines,
    { inputs: ['x'], reduces: true },
    target,
    (code) => wgsl`
      ${exponentialSum(code)}
      ${code.storeLine(`high + ${code.log('weight')}`)}`,
  );
}

/** Declares `high`, the maximum of a line, which may miss NaN, and `weight`, Σ e^(x − high), which does not. */
function exponentialSum({ type, loop, load, exp, total }: LineCode): string {
  return wgsl`
    var highs = ${type}(${LOWEST});
    ${loop(`highs = max(highs, ${load('x')});`)}
    let high = ${total('highs', 'larger')};
    var weights = ${type}(0.0);
    ${loop(`weights += ${exp(`${load('x')} - high`)};`)}
    let weight = ${total('weights', 'plus')};`;
}

/** dx of p = softmax(x): p · (dp − Σ dp · p). */
export function softmaxGradientKernel(lines: Lines, target: KernelTarget): KernelBody {
  return lineKernel(lines, { inputs: ['dp', 'p'] }, target, ({ type, loop, load, total, store }) => {
    return wgsl`
      var products = ${type}(0.0);
      ${loop(`products += ${load('dp')} * ${load('p')};`)}
      let product = ${total('products', 'plus')};
      ${loop(store(`${load('p')} * (${load('dp')} - product)`))}`;
  });
}

/** dx of p = logSoftmax(x): dp − e^p · Σ dp. */
export function logSoftmaxGradientKernel(lines: Lines, target: KernelTarget): KernelBody {
  return lineKernel(lines, { inputs: ['dp', 'p'] }, target, ({ type, loop, load, exp, total, store }) => {
    return wgsl`
      var sums = ${type}(0.0);
      ${loop(`sums += ${load('dp')};`)}
      let sum = ${total('sums', 'plus')};
      ${loop(store(`${load('dp')} - ${exp(load('p'))} * sum`))}`;
  });
}
