/** Kernels that compute the same in tiles of several sizes, and how a size is chosen. */
import type { KernelBody } from '../kernel.ts';

/** How one invocation or subgroup is loaded: sizes are in the family's own units. */
export interface Tile {
  readonly rows: number;
  readonly columns: number;
  /** Register tiles: the axis along the lanes. */
  readonly lanes?: 'rows' | 'columns';
  /** Weight gradients on register tiles: the rows are this many taps of equally many channels. */
  readonly taps?: number;
}

/** A kernel of geometries G in any of its tiles; results differ only in what may be rounded. */
export interface TiledKernel<G> {
  /** All tiles for a geometry, those of the least estimated time first. It depends on logical shapes alone. */
  tiles(geometry: G): readonly Tile[];
  /** `tile` is one of the geometry's tiles. */
  kernel(geometry: G, tile: Tile): KernelBody;
}

/** `12x4 columns`: what kernel tables call a tile. */
export function tileName({ rows, columns, lanes, taps }: Tile): string {
  return `${rows}x${columns}${lanes === undefined ? '' : ` ${lanes}`}${taps === undefined ? '' : ` ${taps} taps`}`;
}

/** The candidates by rising cost; equal ones stay in their order. */
export function byCost<T>(candidates: readonly T[], cost: (candidate: T) => number): T[] {
  return candidates
    .map((candidate) => ({ candidate, cost: cost(candidate) }))
    .sort((a, b) => a.cost - b.cost)
    .map(({ candidate }) => candidate);
}
