/** How far results on several devices agree with those on one. */
import type { DeviceInfo } from '@cohesin/core';

/** `L0`: in every bit. `L2`: within tolerance, as other drivers round differently. */
export type Level = 'L0' | 'L2';

/** What each level holds and what it does not, for a person. */
export const LEVELS: Readonly<Record<Level, string>> = {
  L0: 'with the bits of any number of them',
  L2: 'within float32 rounding of one of them, not with its bits: they round differently. All hold the same weights, since each is moved by one and given to the others; the same devices in the same order repeat a run in every bit',
};

/** Where devices first differ in what they say about themselves; undefined where they are alike. */
export function differenceOf(
  infos: readonly DeviceInfo[],
  ranks: readonly number[] = [...infos.keys()],
): string | undefined {
  const [first, ...others] = ranks;
  for (const other of others) {
    for (const field of Object.keys(infos[first!]!) as (keyof DeviceInfo)[]) {
      const [a, b] = [first!, other].map((rank) => JSON.stringify(infos[rank]![field]));
      if (a !== b) return `ranks ${first} and ${other} differ in ${field}: ${a} and ${b}`;
    }
  }
  return undefined;
}

export const levelOf = (infos: readonly DeviceInfo[]): Level =>
  differenceOf(infos) === undefined ? 'L0' : 'L2';
