import type { Graph } from '../graph.ts';
import type { Range } from '../op.ts';
import { Tensor } from '../tensor.ts';

/**
 * What a rank holds of a tensor while it works on one leaf. Leaves of whole sequences: `batch`, its own rows of the
 * leading axis. Leaves that are parts of one sequence: `rows`, its own rows of some axis; `sequence`, all of the sequence,
 * on every rank. Either: `partial`, its addend of a sum over leaves; `whole`, the same for all leaves of the step.
 */
export type Layout = 'batch' | 'rows' | 'sequence' | 'partial' | 'whole';

/** A graph rebuilt for one leaf. */
export interface Sharded {
  readonly graph: Graph;
  readonly layouts: ReadonlyMap<Tensor, Layout>;
  /** Parts of a sequence that hold anything of a tensor, where that is not all of them. */
  readonly parts: ReadonlyMap<Tensor, Range>;
  /** How often the graph runs for a step, sequence after sequence, and on how many leaves at a time. */
  readonly rounds: { readonly count: number; readonly leaves: number };
}

/** Computed once for all leaves that are worked on together. */
export function isShared(layout: Layout | undefined): boolean {
  return layout === 'whole' || layout === 'sequence';
}

/** Leaves of a round that hold a piece of a tensor of their own; one where all hold the same. */
export function partsOf({ layouts, parts, rounds }: Sharded, node: Tensor): Range {
  return isShared(layouts.get(node)) ? [0, 1] : (parts.get(node) ?? [0, rounds.leaves]);
}

/** The node on leaf inputs; inputs that only gave a shape are dropped, their work is done. */
export function onInputs(
  node: Tensor,
  inputs: Readonly<Record<string, Tensor>>,
  attrs: unknown = node.attrs,
): Tensor {
  const used = Object.entries(inputs).filter(([name]) => node.op.shapeOnly?.includes(name) !== true);
  return new Tensor(node.op, Object.fromEntries(used), attrs, node.op.infer(inputs, attrs), node);
}

/**
 * Checks an op that is given addends of a sum over leaves: only a linear one may be.
 *
 * @throws when it is not linear, or adds something that is no such addend.
 */
export function checkAddends(node: Tensor, held: readonly (readonly [string, Layout])[]): void {
  const sums = held.filter(([, layout]) => layout === 'partial').length;
  if (node.op.name === 'leafSum') {
    if (sums > 0) return;
    throw new Error(
      `${node}: this gradient is not a sum over sequences (it depends on no input); regularise in the optimizer instead`,
    );
  }
  if (node.op.kernel.kind === 'exchange') return;
  const whole = held.filter(([, layout]) => layout === 'whole').length;
  const additive = node.op.name === 'add' || node.op.name === 'subtract';
  const adds = additive ? whole === 0 : sums === 1; // Σa · Σb is no sum over sequences
  if (node.op.linear === true && sums + whole === held.length && adds) return;
  throw new Error(
    `${node}: uses a sum over sequences (${held.map(([name, l]) => `${name} is ${l}`).join(', ')}) before the leaves are added up; only linear ops may, and nothing that is not such a sum may be added to it`,
  );
}
