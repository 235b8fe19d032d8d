import type { Counters, StepCounters } from '../counters.ts';
import { globPattern } from '../glob.ts';
import { add, multiply } from '../ops/arithmetic.ts';
import { buffer, type Parameter, scalar } from '../parameter.ts';
import { withScope } from '../scope.ts';
import { sameShape, shapeText, type Tensor } from '../tensor.ts';
import { assign } from '../trace.ts';
import { type LearningRate, learningRateAt } from './learning-rate.ts';
import { type GradientTransform, renormOutputs } from './norms.ts';
import { RATE_FACTOR } from './plateau.ts';

/** How parameters follow their gradients: numbers that change each step on the host, the rest as graph. */
export interface Optimizer extends StepCounters {
  /** Traces the update: assigns new values to the parameters and to the optimizer's own buffers, in phase U. */
  update(parameters: readonly Parameter[], gradients: readonly Tensor[]): void;
}

/** What every optimizer takes. */
export interface OptimizerOptions {
  readonly learningRate: LearningRate;
  /**
   * What the learning rate of some parameters is multiplied by, by dotted path, `*` for any characters: `{ 'trunk.*': 0.1 }`
   * trains a trunk carefully below a new head. Of several patterns that fit, the last counts.
   */
  readonly rateFactors?: Readonly<Record<string, number>>;
  /** `clipPerVariable(limit)`, `clipGlobalNorm(limit)` or `clipAdaptive(factor)`. */
  readonly clip?: GradientTransform;
  /** After the update, the largest length of the weights of one output unit (Basset: 7). */
  readonly maxNorm?: number;
}

/** One optimizer's own part. */
export interface Rule {
  /** Counters besides `step`, before the first step. */
  readonly initial?: Counters;
  advance?(counters: Counters): Counters;
  /** Scalars besides `learningRate`. */
  scalars?(counters: Counters): Readonly<Record<string, number>>;
  /** The new value of a parameter. */
  next(parameter: Parameter, gradient: Tensor, own: OfParameter): Tensor;
}

/** What a rule works with beside the parameter and its gradient. */
export interface OfParameter {
  /** The learning rate of this parameter at this step. */
  readonly rate: Tensor;
  /** A buffer of its shape, kept as `optimizer/<kind>/<parameter>`. */
  readonly moment: (kind: string) => Parameter;
}

/** An optimizer from its rule: counts steps, schedules, clips, keeps buffers and renormalises. */
export function optimizer(
  { learningRate, rateFactors = {}, clip, maxNorm }: OptimizerOptions,
  rule: Rule,
): Optimizer {
  const moments = new WeakMap<Parameter, Map<string, Parameter>>();
  return {
    counters: () => ({ step: 0, ...rule.initial }),
    advance: (counters) => ({ ...counters, ...rule.advance?.(counters), step: counters.step! + 1 }),
    scalars: (counters) => ({
      learningRate: learningRateAt(learningRate, counters.step!) * (counters[RATE_FACTOR] ?? 1),
      ...rule.scalars?.(counters),
    }),
    update: (parameters, gradients) => {
      checkGradients(parameters, gradients);
      checkFactors(parameters, rateFactors);
      const clipped = withScope({ phase: 'U' }, () => {
        const penalised = gradients.map((gradient, i) => withPenalty(parameters[i]!, gradient));
        return clip?.(penalised, parameters) ?? penalised;
      });
      for (const [i, parameter] of parameters.entries()) {
        withScope({ path: layerPath(parameter), phase: 'U' }, () => {
          const value = rule.next(parameter, clipped[i]!, {
            rate: rateOf(parameter, rateFactors),
            moment: (kind) => momentOf(moments, parameter, kind),
          });
          assign(parameter, maxNorm === undefined ? value : renormOutputs(value, maxNorm));
        });
      }
    },
  };
}

/** The learning rate of a parameter: the scalar itself where no factor changes it. */
function rateOf({ name }: Parameter, factors: Readonly<Record<string, number>>): Tensor {
  const own = Object.entries(factors).filter(([pattern]) => globPattern(pattern).test(name));
  const factor = own.at(-1)?.[1] ?? 1;
  return factor === 1 ? scalar('learningRate') : multiply(scalar('learningRate'), factor);
}

function checkFactors(parameters: readonly Parameter[], factors: Readonly<Record<string, number>>): void {
  for (const [pattern, factor] of Object.entries(factors)) {
    if (!(factor > 0))
      throw new Error(
        `optimizer: the rate factor of '${pattern}' is ${factor}; it must be above 0. To train none of them, freeze them`,
      );
    if (!parameters.some(({ name }) => globPattern(pattern).test(name)))
      throw new Error(
        `optimizer: no trained parameter matches the rate factor '${pattern}'; there are ${parameters
          .slice(0, 8)
          .map(({ name }) => name)
          .join(', ')}, …`,
      );
  }
}

/** The gradient of the loss with the ridge penalty of its parameter, before clipping as in Keras. */
function withPenalty(parameter: Parameter, gradient: Tensor): Tensor {
  return parameter.l2 === 0 ? gradient : add(gradient, multiply(parameter, 2 * parameter.l2));
}

function checkGradients(parameters: readonly Parameter[], gradients: readonly Tensor[]): void {
  if (parameters.length !== gradients.length) {
    throw new Error(
      `optimizer: ${parameters.length} parameters but ${gradients.length} gradients; give one for each`,
    );
  }
  for (const [i, { name, shape }] of parameters.entries()) {
    if (name === '')
      throw new Error('optimizer: a parameter has no name; call parameters(model) or name it by hand');
    const gradient = gradients[i]!;
    if (!sameShape(shape, gradient.shape)) {
      throw new Error(
        `optimizer: ${name} is ${shapeText(shape)} but its gradient is ${shapeText(gradient.shape)}; they must be equal`,
      );
    }
  }
}

/** The path of the layer a parameter belongs to: stages of a pipeline are cut by it. */
const layerPath = ({ name }: Parameter): string => name.slice(0, Math.max(0, name.lastIndexOf('.')));

/** The same buffer at every trace, so that functions compiled for several shapes share one state. */
function momentOf(
  moments: WeakMap<Parameter, Map<string, Parameter>>,
  parameter: Parameter,
  kind: string,
): Parameter {
  const own = moments.get(parameter) ?? new Map<string, Parameter>();
  moments.set(parameter, own);
  const moment = own.get(kind) ?? buffer(parameter.shape, { name: `optimizer/${kind}/${parameter.name}` });
  own.set(kind, moment);
  return moment;
}
