/** How Basenji rounds the sizes that it computes. */
import type { Fields } from './fields.ts';

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

/** The filters that a tower's options come to. @throws when the options contradict each other. */
export function readTowerFilters(options: Fields): number[] {
  const repeat = options.integer('repeat', 1);
  const first = options.number('filters_init');
  if (options.has('filters')) {
    throw new Error(`${options.where}.filters: a tower has filters_init, and filters_mult or filters_end`);
  }
  const multiplier = readMultiplier(options, first, repeat);
  return towerFilters({ first, multiplier, repeat, divisibleBy: options.integer('divisible_by', 1) });
}

function readMultiplier(options: Fields, first: number, repeat: number): number {
  if (options.has('filters_mult')) return options.number('filters_mult');
  const last = options.number('filters_end');
  return repeat === 1 ? 1 : Math.exp(Math.log(last / first) / (repeat - 1));
}

export interface DilationOptions {
  readonly multiplier: number;
  readonly repeat: number;
  /** Multiply the rounded rate on: 1, 2, 3, 4, 6, 9, …; otherwise only what is used is rounded: 1, 2, 2, 3, 5, 8, …. */
  readonly round?: boolean;
}

/** The dilations that a tower's options come to. */
export function readDilationRates(options: Fields, round = false): number[] {
  return dilationRates({
    multiplier: options.number('rate_mult', 2),
    repeat: options.integer('repeat', 1),
    round,
  });
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
