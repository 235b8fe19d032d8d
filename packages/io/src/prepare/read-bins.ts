/** The targets of one track in one sequence. */
import { f16ToF32, f32ToF16 } from '../float16.ts';
import { type Interval, type Span, within } from '../intervals.ts';
import type { Track } from '../track.ts';
import type { PrepareOptions, TrackSource } from './options.ts';
import type { PreparePlan } from './plan.ts';
import { binTargets } from './targets.ts';
import type { TrackCount } from './track-summary.ts';

/** Where targets are, and which of their bins cannot be mapped to. */
type Place = Interval & { readonly unmappable?: Uint8Array };

/**
 * As f16 bits `[bins]`. A chromosome without a `name` in the track has no values.
 *
 * @throws when the track is damaged there or a target is no number
 */
export async function readBins(
  { track, name }: { readonly track: Track; readonly name: string | undefined },
  sequence: Place,
  source: TrackSource,
  { options, blacklist }: PreparePlan,
  count?: TrackCount,
): Promise<Uint16Array> {
  const { startBp, endBp, unmappable } = sequence;
  const coverage =
    name === undefined
      ? new Float32Array(endBp - startBp).fill(Number.NaN)
      : await track.read(name, startBp, endBp);
  const blocked = within(blacklist, sequence).map(([start, end]): Span => [start - startBp, end - startBp]);
  const binned = binTargets(coverage, source, { ...options, blacklist: blocked });
  checkNumbers(binned.values, sequence, source, options);
  const bits = f32ToF16(binned.values);
  const held =
    unmappable && options.unmappableClip < 1
      ? clipUnmappable(bits, unmappable, options.unmappableClip)
      : bits;
  count?.add(held, binned, endBp - startBp);
  return held;
}

function checkNumbers(
  values: Float64Array,
  { chrom, startBp }: Place,
  { file, statistic }: TrackSource,
  { poolWidthBp }: PrepareOptions,
): void {
  const bin = values.findIndex(Number.isNaN);
  if (bin < 0) return;
  const from = startBp + bin * poolWidthBp;
  throw new Error(
    `${file}: ${chrom}:${from}-${from + poolWidthBp} has no ${statistic}: a root of a negative sum, or infinite values of both signs; choose sum or mean for tracks with negative values`,
  );
}

/** Unmappable bins, at most the quantile of the whole sequence. hound_data_write.py */
function clipUnmappable(bits: Uint16Array, unmappable: Uint8Array, quantile: number): Uint16Array {
  const values = f16ToF32(bits);
  const ordered = values.toSorted();
  const at = quantile * (ordered.length - 1);
  const low = ordered[Math.floor(at)]!;
  const limit = low + (ordered[Math.ceil(at)]! - low) * (at - Math.floor(at));
  return f32ToF16(values.map((value, bin) => (unmappable[bin] ? Math.min(value, limit) : value)));
}
