import type { Assignment, Graph } from './graph.ts';
import type { Parameter } from './parameter.ts';
import { sameShape, shapeText, type Tensor } from './tensor.ts';

let recording: Assignment[] | undefined;

/** After the step, `parameter` holds `value`. Recorded by the trace that is running; without one it is an error. */
export function assign(parameter: Parameter, value: Tensor): void {
  if (recording === undefined)
    throw new Error(`assign(${parameter.name}): only inside a function that is being compiled`);
  if (!sameShape(parameter.shape, value.shape)) {
    throw new Error(
      `assign: ${parameter.name} is ${shapeText(parameter.shape)} but the value is ${shapeText(value.shape)}; they must be equal`,
    );
  }
  recording.push({ parameter, value });
}

/** Runs `fn` on symbolic inputs and records what it computes and assigns. */
export function trace(fn: () => Readonly<Record<string, Tensor>>): Graph {
  const outer = recording;
  const assignments: Assignment[] = [];
  recording = assignments;
  try {
    const outputs = fn();
    const twice = assignments.find(
      ({ parameter }, i) => assignments.findIndex((a) => a.parameter === parameter) !== i,
    );
    if (twice !== undefined)
      throw new Error(`${twice.parameter.name} is assigned twice in one step; combine the updates`);
    return { outputs, assignments };
  } finally {
    recording = outer;
  }
}
