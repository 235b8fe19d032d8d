import { axesOf } from '../axes.ts';
import { elementCount } from '../host-tensor.ts';
import type { Tensor } from '../tensor.ts';

/**
 * Sizes of all axes multiplied: what a matmul or a convolution does, and more than any other kernel. Where a window slides,
 * axes without a name are taps, or the width of a map: those of the output and of the last operand count.
 */
export function multiplyAdds(node: Tensor): number {
  if (node.op.kernel.kind !== 'shader') return 0;
  const { inputs, output } = axesOf(node);
  const sizes = new Map<string, number>();
  for (const [name, axes] of Object.entries(inputs))
    for (const [k, axis] of axes.entries()) sizes.set(axis.name, node.inputs[name]?.shape[k] ?? 1);
  for (const [k, axis] of output.entries()) sizes.set(axis.name, node.shape[k]!);
  sizes.delete('_');
  sizes.delete('+');
  const slides = Object.values(inputs).some((axes) => axes.some(({ window }) => window));
  const [last, axes] = Object.entries(inputs).at(-1) ?? ['', []];
  const unnamed = !slides
    ? []
    : [
        ...output.map(({ name }, k) => (name === '_' ? node.shape[k]! : 1)),
        ...axes.map(({ name }, k) => (name === '_' ? (node.inputs[last]?.shape[k] ?? 1) : 1)),
      ];
  return Math.max(
    elementCount(node.shape),
    [...sizes.values(), ...unnamed].reduce((a, b) => a * b, 1),
  );
}
