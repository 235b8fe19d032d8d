/** Where sliding windows lie: shared by convolutions and pools. */
import type { Range } from '../op.ts';

/** `same` and `valid` as in TensorFlow, or explicit rows of padding. */
export type Padding = 'same' | 'valid' | { readonly left: number; readonly right: number };

export interface Windows {
  /** Rows the first window begins before the input. */
  readonly padLeft: number;
  /** Number of windows. */
  readonly outLength: number;
}

/**
 * Windows of `span` rows every `stride` rows over `length` rows.
 *
 * @throws when a size is not a positive whole number, or no window fits.
 */
export function windowGeometry(
  name: string,
  sizes: {
    readonly length: number;
    readonly span: number;
    readonly stride: number;
    readonly padding: Padding;
  },
): Windows {
  const { length, span, stride, padding } = sizes;
  if (![span, stride].every((size) => Number.isInteger(size) && size > 0)) {
    throw new Error(
      `${name}: windows of ${span} rows every ${stride} rows; both must be positive whole numbers`,
    );
  }
  if (padding === 'same') {
    const outLength = Math.ceil(length / stride);
    const total = Math.max((outLength - 1) * stride + span - length, 0);
    return { padLeft: Math.floor(total / 2), outLength }; // TensorFlow: the odd row of padding goes to the right
  }
  const { left, right } = padding === 'valid' ? { left: 0, right: 0 } : padding;
  const padded = left + length + right;
  if (padded < span) {
    throw new Error(
      `${name}: a window of ${span} rows does not fit into ${padded} (${length} and padding ${left} + ${right}); pad by ${span - padded} more or use padding: 'same'`,
    );
  }
  return { padLeft: left, outLength: Math.floor((padded - span) / stride) + 1 };
}

/** Rows a window touches, cut to `[0, length)`; at least one row, which the window then masks. */
export function clampedRows([from, to]: Range, length: number): Range {
  const first = Math.min(Math.max(from, 0), length - 1);
  return [first, Math.max(Math.min(to, length), first + 1)];
}
