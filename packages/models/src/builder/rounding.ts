/** How Basenji rounds the sizes that it computes. */

/** To the nearest whole number, halves to the even one: NumPy's `round`. */
export function roundHalfEven(x: number): number {
  const below = Math.floor(x);
  const rest = x - below;
  if (rest !== 0.5) return rest < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

export interface TowerOptions {
  readonly first: number;
  /** From one convolution to the next. */
  readonly multiplier: number;
  readonly repeat: number;
  readonly divisibleBy?: number;
}

/** Filters of the convolutions of a tower: 339, 399, 470, … from 339 and 1.1776. */
export function towerFilters({ first, multiplier, repeat, divisibleBy = 1 }: TowerOptions): number[] {
  let filters = first;
  return Array.from({ length: repeat }, () => {
    const rounded = Math.trunc(roundHalfEven(filters / divisibleBy) * divisibleBy);
    filters *= multiplier;
    return rounded;
  });
}

export interface DilationOptions {
  readonly multiplier: number;
  readonly repeat: number;
  /** Multiply the rounded rate on: 1, 2, 3, 4, 6, 9, …; otherwise only what is used is rounded: 1, 2, 2, 3, 5, 8, …. */
  readonly round?: boolean;
}

/** Dilations in rows of the blocks of a dilated residual tower. */
export function dilationRates({ multiplier, repeat, round = false }: DilationOptions): number[] {
  let rate = 1;
  return Array.from({ length: repeat }, () => {
    const used = roundHalfEven(rate);
    rate *= multiplier;
    if (round) rate = roundHalfEven(rate);
    return used;
  });
}
