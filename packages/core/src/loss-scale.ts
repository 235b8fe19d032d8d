/**
 * Dynamic loss scaling (Micikevicius et al. 2018): in mixed precision gradients are computed a power of two too large, so
 * that small ones are not lost in f16, and brought back exactly in f32 before they are summed. The scale is host state: it
 * is in the counters, and so in checkpoints.
 */
import type { Counters, StepCounters } from './counters.ts';
import { multiply } from './ops/arithmetic.ts';
import { constant, scalar } from './parameter.ts';
import { currentScope, withScope } from './scope.ts';
import type { Tensor } from './tensor.ts';

export const LOSS_SCALE = 'lossScale';
const INVERSE = 'lossScale.inverse';

// As in PyTorch's GradScaler, and with bounds.
const FIRST = 2 ** 16;
const GOOD_STEPS_TO_GROW = 2_000;
const LARGEST = 2 ** 24;

/** What the gradient of the loss starts from: 1, or the scale in mixed precision. */
export function lossSeed(): Tensor {
  return currentScope().precision === 'mixed' ? scalar(LOSS_SCALE) : constant(1);
}

/** A parameter's gradient from that of the scaled loss. */
export function unscaled(gradient: Tensor): Tensor {
  if (currentScope().precision === 'f32') return gradient;
  return withScope(gradient, () => multiply(gradient, scalar(INVERSE)));
}

/** An optimizer's counters with the loss scale beside them. */
export function withLossScale(rules: StepCounters): StepCounters {
  return {
    counters: () => ({ ...rules.counters(), [LOSS_SCALE]: FIRST, goodSteps: 0 }),
    advance: (counters) => ({ ...rules.advance(counters), ...afterGoodStep(counters) }),
    scalars: (counters) => ({
      ...rules.scalars(counters),
      [LOSS_SCALE]: counters[LOSS_SCALE]!,
      [INVERSE]: 1 / counters[LOSS_SCALE]!,
    }),
    afterOverflow: (counters) => {
      const scale = counters[LOSS_SCALE]!;
      return scale === 1 ? undefined : { ...counters, [LOSS_SCALE]: scale / 2, goodSteps: 0 };
    },
  };
}

function afterGoodStep({ [LOSS_SCALE]: scale, goodSteps }: Counters): Counters {
  const good = goodSteps! + 1;
  return good < GOOD_STEPS_TO_GROW
    ? { [LOSS_SCALE]: scale!, goodSteps: good }
    : { [LOSS_SCALE]: Math.min(scale! * 2, LARGEST), goodSteps: 0 };
}
