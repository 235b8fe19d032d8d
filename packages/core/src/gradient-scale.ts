import type { GradientSums } from './program.ts';

/** What the peaks of a step's leaf gradients mean for it. */
export type SumDecision =
  | { readonly kind: 'commit'; readonly q: Int32Array }
  /** A leaf did not fit the window of its scale: the step is run again with the scale it needs. */
  | { readonly kind: 'repeat'; readonly q: Int32Array }
  | { readonly kind: 'not-finite'; readonly tensor: string };

export const FIRST_Q = -44;
/** A leaf's largest value lies 24 to 52 binary digits above the unit 2^q: precise enough, and 2^10 leaves fit 64 bits. */
const LOWEST_DIGITS = 24;
const HIGHEST_DIGITS = 52;
/** The unit is set this far below the largest leaf of the last step. */
const HEADROOM = 40;
/** Units below this are not needed: f32 gradients that small are zero for every optimizer. */
const SMALLEST_Q = -140;
const INFINITY_BITS = 0x7f80_0000;

/** q of every tensor before the first step. */
export function initialScales(sums: GradientSums): Int32Array {
  return new Int32Array(sums.tensors.length).fill(FIRST_Q);
}

/** Decides a step from the largest |leaf gradient| of each tensor, given as f32 bits, over all leaves of all ranks. */
export function decide(
  sums: { readonly tensors: readonly { readonly name: string }[] },
  peaks: Uint32Array,
  q: Int32Array,
): SumDecision {
  const broken = peaks.findIndex((bits) => bits >= INFINITY_BITS);
  if (broken >= 0) return { kind: 'not-finite', tensor: sums.tensors[broken]!.name };
  const next = q.map((unit, i) =>
    peaks[i] === 0 ? unit : Math.max(SMALLEST_Q, exponent(peaks[i]!) - HEADROOM),
  );
  const fits = q.every((unit, i) => {
    if (peaks[i] === 0) return true;
    const digits = exponent(peaks[i]!) - unit;
    return digits < HIGHEST_DIGITS && (digits >= LOWEST_DIGITS || unit === SMALLEST_Q);
  });
  return { kind: fits ? 'commit' : 'repeat', q: next };
}

/** e with 2^e ≤ |value| < 2^(e+1); subnormals count as 2^-127. */
function exponent(bits: number): number {
  return (bits >>> 23) - 127;
}
