import type { AnyOp } from './op.ts';
import { shapeText, type Tensor } from './tensor.ts';

export interface Axis {
  readonly name: string;
  /** Marked `~`: a window slides along it. */
  readonly window: boolean;
}

/** The axes an op declares, of each input and of the output. */
export interface Axes {
  readonly inputs: Readonly<Record<string, readonly Axis[]>>;
  readonly output: readonly Axis[];
}

export function parseAxes(op: AnyOp, attrs: unknown): Axes {
  const text = typeof op.axes === 'function' ? op.axes(attrs) : (op.axes ?? '');
  const [left = '', right = ''] = text.split('->');
  const list = (part: string): Axis[] =>
    [...part.matchAll(/([^\s~]+)(~?)/g)].map(([, name, mark]) => ({ name: name!, window: mark === '~' }));
  const parts = left.split(',');
  return {
    inputs: Object.fromEntries(op.inputs.map((name, i) => [name, list(parts[i] ?? '')])),
    output: list(right),
  };
}

/**
 * The axes of a call: those its op declares, or for a map those of its output, each shared by the inputs that have it. An
 * input that a map indexes in its own way, such as means and variances, shares the batch and the channels alone.
 *
 * @throws when the op is no map and declares none.
 */
export function axesOf(node: Tensor): Axes {
  if (node.op.axes !== undefined) return parseAxes(node.op, node.attrs);
  if (node.op.kernel.kind !== 'map') {
    throw new Error(
      `op '${node.op.name}' declares no axes, so ${shapeText(node.shape)} cannot be split over leaves; add 'axes'`,
    );
  }
  const rank = node.shape.length;
  const output = node.shape.map((_, axis) => ({ name: `axis${axis}`, window: false }));
  const { index } = node.op.kernel;
  const site = { i: 'i', key: () => '0u', y: node, specs: node.inputs };
  const ofInput = (name: string, shape: readonly number[]): Axis[] => {
    const isIndexed = index?.(name, node.attrs, site) !== undefined;
    return shape.map((size, axis) => {
      const at = axis + rank - shape.length;
      const isInner = axis > 0 && axis < shape.length - 1;
      return size === node.shape[at] && !(isIndexed && isInner) ? output[at]! : { name: '_', window: false };
    });
  };
  return {
    inputs: Object.fromEntries(
      Object.entries(node.inputs).map(([name, { shape }]) => [name, ofInput(name, shape)]),
    ),
    output,
  };
}
