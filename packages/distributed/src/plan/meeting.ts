/** What it costs that devices which share sequences meet. */
import type { Gather } from './blocks.ts';
import { type Costs, gatherMs, transferMs } from './costs.ts';

/** Devices that share each microbatch. */
export interface Group {
  readonly ranks: number;
  /** The part of a microbatch that the device with most leaves has, and how many these are. */
  readonly fraction: number;
  readonly leaves: number;
  /** Microbatches at once. */
  readonly sideBySide: number;
}

/**
 * Time that the microbatches of a group add where they meet. All wait for the slowest device. From two side by side on they
 * go in two halves: while one meets, the device works on the other, which hides the wait, and where links overlap with
 * work the transfer too.
 */
export function meetingMs(gather: Gather, group: Group, costs: Costs): number {
  const { ranks, fraction, sideBySide } = group;
  const { besideMs } = gather;
  const bytes = neededBytes(gather, ranks);
  if (ranks === 1) return sideBySide * gatherMs(bytes, 1, costs);
  const { latencyMs, overlap } = costs.link;
  const first = Math.ceil(sideBySide / 2);
  const halves = [first, sideBySide - first].filter((half) => half > 0);
  return halves.reduce((sum, half) => {
    const copyMs = transferMs(half * bytes, costs) - latencyMs;
    const waitMs = latencyMs + slowerMs(half, besideMs, group, costs);
    const hiddenMs = (sideBySide - half) * fraction * besideMs;
    return (
      sum + (overlap ? Math.max(0, waitMs + copyMs - hiddenMs) : copyMs + Math.max(0, waitMs - hiddenMs))
    );
  }, 0);
}

/** What each of `ranks` devices comes to hold at a meeting. */
export function neededBytes(gather: Gather, ranks: number): number {
  const { bytes, addressedBytes = 0, edgeBytes = 0, besideBytes = 0 } = gather;
  const others = 1 - 1 / ranks;
  return bytes - addressedBytes * others - Math.max(0, edgeBytes * others - besideBytes);
}

/** Means of the largest of 2, 3, … samples of a normal distribution, in standard deviations (Harter 1961). */
const LARGEST_OF = [0.5642, 0.8463, 1.0294, 1.163, 1.2672, 1.3522, 1.4236];

/** How much longer than a device the slowest of them takes over `half` microbatches: leaves vary on their own. */
function slowerMs(
  half: number,
  besideMs: number,
  { ranks, fraction, leaves }: Group,
  { device: { jitter = 0 } }: Costs,
): number {
  const largest = LARGEST_OF[Math.min(ranks - 2, LARGEST_OF.length - 1)]! / LARGEST_OF[0]!;
  return (largest * jitter * half * fraction * besideMs) / Math.sqrt(half * leaves);
}
