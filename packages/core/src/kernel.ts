import type { KernelTable } from './kernels/kernel-table.ts';
import type { Range } from './op.ts';

/**
 * What an op's `shader` kernel returns: the body of one compute entry point.
 *
 * The compiler wraps the body. Inside it these names exist:
 * - `wg: u32`, the flat workgroup index in `[0, workgroups)`, uniform; `lane: u32`, the local invocation index.
 * - `load_NAME(i: u32) -> f32` for every input NAME of the op: element `i` in row-major order, whatever it is stored as
 *   and with any fused prologue applied. For inputs listed in `vec4`: `load4_NAME(i: u32) -> vec4f`, elements 4i…4i+3.
 * - `store(i: u32, v: f32)` for the output, with any fused epilogue applied; `store4(i: u32, v: vec4f)` if `vec4` lists `y`.
 * Loads and stores must be in range: guard the edges. There is no early return before a barrier.
 */
export interface KernelBody {
  readonly body: string;
  /** WGSL extensions the body needs. With `subgroups` it also sees `subgroup: u32`, the index of its subgroup. */
  readonly enables?: readonly string[];
  /** Module-scope WGSL the body needs: `var<workgroup>`, helper functions. */
  readonly declarations?: string;
  readonly workgroupSize: number;
  readonly workgroups: number;
  /**
   * Elements of inputs, and of `y`, that workgroups `[from, to)` use, as ranges that grow with `to`; all of a tensor that is
   * not named. Loads whose value is not used may be anywhere. Tensors larger than a device binds at once are bound in part.
   */
  touches?(from: number, to: number): Readonly<Record<string, Range>>;
  /** For sums over more than a device binds at once: the same work, with sums over ranges of their terms. */
  readonly fold?: FoldedBody;
  /** Inputs, and `y` for the output, that are accessed four elements at a time; their element counts are multiples of 4. */
  readonly vec4?: readonly string[];
}

/**
 * A body whose sums go over those of a workgroup's terms that lie in `[termFrom, termTo)`, and go on from `resumed(inside, i)`: the sum so far that
 * element i of the output holds, if it is inside. Sums are stored as usual; the epilogue waits for the last range.
 */
export interface FoldedBody {
  readonly body: string;
  /** Workgroups `[n · row, (n + 1) · row)` sum over the same terms, `terms(n)`, of `count` in all. */
  readonly row: number;
  readonly count: number;
  terms(n: number): Range;
  touches(workgroups: Range, terms: Range): Readonly<Record<string, Range>>;
}

/** The kind of device that kernels are written for: part of the logical plan, since it decides their texts. */
export type KernelTarget = (
  | /** A driver on the CPU: no workgroup memory. */
  { readonly kind: 'software' }
  /** A GPU: workgroup memory. */
  | { readonly kind: 'gpu' }
  /** A GPU whose subgroups multiply f16 matrices: for mixed precision. */
  | { readonly kind: 'tensor-core'; readonly matrices: SubgroupMatrices }
) & {
  /** Measured tiles by class of product, in place of the shipped ones. */
  readonly table?: KernelTable;
};

/** f16 matrices [m, k] and [k, n] that a subgroup multiplies at a time, summed in f32. */
export interface SubgroupMatrices {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly subgroupSize: number;
}

export const SOFTWARE: KernelTarget = { kind: 'software' };
