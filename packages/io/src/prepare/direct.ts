/** A data set that is not written: sequences and targets straight from the genome and its tracks. */
import { grouped, type ShardSet } from '../dataset.ts';
import { readPadded } from '../genome.ts';
import type { Interval } from '../intervals.ts';
import { epochOrder } from '../order.ts';
import type { SequenceRecord } from '../record.ts';
import { checkPosition, type StreamedRecord, type StreamOptions } from '../shards.ts';
import { beyondBp } from './options.ts';
import type { PreparePlan } from './plan.ts';
import type { PlannedSequence } from './select.ts';
import { clipUnmappable, openTargets, type TargetReader } from './target-reader.ts';

/** A plan's sequences by random access, in the same orders and with the same positions as from files. Close it. */
export interface IntervalDataset extends ShardSet {
  /**
   * Any place of the genome as a record: `interval` is where the targets are, as long as those of the plan's sequences.
   *
   * @throws when it has another length or is not inside its chromosome, or an input is damaged there
   */
  read(interval: Interval): Promise<SequenceRecord>;
  /** Closes the genome and the tracks. */
  close(): Promise<void>;
}

interface Places {
  readonly length: number;
  at(i: number): PlannedSequence;
}

/** Records read before they are asked for. */
const AHEAD = 4;

/**
 * Opens every track of a plan, and keeps them open.
 *
 * @throws when one cannot be opened, or the plan clips extreme values
 */
export async function openIntervals(plan: PreparePlan): Promise<IntervalDataset> {
  if (plan.options.extremeQuantile !== undefined)
    throw new Error(
      'openIntervals: extremeQuantile needs all targets of a track; prepare the data set, or leave it out',
    );
  const { options, targetLength, sequences } = plan;
  const tracks: TargetReader[] = [];
  const close = async (): Promise<void> => {
    for (const track of tracks) await track.close();
    await plan.close();
  };
  const inputs = { ...plan, chromosomes: plan.genome.chromosomes };
  try {
    for (const column of options.tracks.keys())
      tracks.push(await openTargets(inputs, column, plan.fragments.get(column)));
  } catch (error) {
    await close();
    throw error;
  }
  const splits = new Map(sequences.splits.map((found) => [found.split, found]));
  const chosen = (split: string): Places => {
    const found = splits.get(split);
    if (found) return { length: found.count, at: (i) => sequences.at(found.from + i) };
    throw new Error(`no split ${split}; this plan has ${[...splits.keys()].join(', ')}`);
  };
  const stream = (split: string, given: StreamOptions = {}) =>
    play(split, chosen(split), given, (place) => readRecord(plan, tracks, place));
  return {
    sequenceLengthBp: options.sequenceLengthBp,
    targetLength,
    numTargets: options.tracks.length,
    sequenceCoded: true,
    splits: Object.fromEntries(
      sequences.splits.map(({ split, count }) => [split, { files: [], records: count }]),
    ),
    count: async (split) => chosen(split).length,
    stream,
    batches: (split, { batch, ...given }) => grouped(stream(split, given), batch),
    read: async (interval) => {
      checkInterval(interval, plan);
      return await readRecord(plan, tracks, interval);
    },
    close,
  };
}

function checkInterval({ chrom, startBp, endBp }: Interval, plan: PreparePlan): void {
  const { options, genome, trackNames } = plan;
  const coreBp = options.sequenceLengthBp - 2 * beyondBp(options);
  const length = genome.chromosomes.get(chrom);
  if (length === undefined) throw new Error(`${genome.path}: no chromosome ${chrom}`);
  if (options.absent === 'error' && trackNames.some((names) => !names.has(chrom)))
    throw new Error(
      `${chrom}: the plan has no sequences there, so its tracks were not compared with the genome's`,
    );
  if (endBp - startBp !== coreBp)
    throw new Error(`${chrom}:${startBp}-${endBp} has ${endBp - startBp} bp; targets are of ${coreBp} bp`);
  if (startBp < 0 || endBp > length)
    throw new Error(`${chrom}:${startBp}-${endBp} is not inside ${chrom}, which has ${length} bp`);
}

async function readRecord(
  plan: PreparePlan,
  tracks: readonly TargetReader[],
  place: Interval & { readonly unmappable?: Uint8Array },
): Promise<SequenceRecord> {
  const { options, genome, targetLength } = plan;
  const { chrom, startBp, endBp } = place;
  const beyond = beyondBp(options);
  const data = new Uint16Array(targetLength * tracks.length);
  for (const [column, track] of tracks.entries()) {
    const { bits } = await track.read(place);
    clipUnmappable(bits, place, options);
    for (let bin = 0; bin < targetLength; bin++) data[bin * tracks.length + column] = bits[bin]!;
  }
  const sequence = await readPadded(genome, chrom, startBp - beyond, endBp + beyond);
  return { sequence, targets: { dtype: 'f16', data } };
}

/** As the records of one shard would come. */
async function* play(
  split: string,
  places: Places,
  { shuffle, repeat = false, position = { epoch: 0, consumed: 0 } }: StreamOptions,
  read: (place: PlannedSequence) => Promise<SequenceRecord>,
): AsyncGenerator<StreamedRecord, void, undefined> {
  checkPosition(split, places.length, position);
  let { epoch, consumed } = position;
  do {
    const { emission } = epochOrder([places.length], epoch, shuffle);
    const ahead: Promise<SequenceRecord>[] = [];
    for (let next = consumed; consumed < places.length; ) {
      for (; next < Math.min(places.length, consumed + AHEAD); next++) {
        const reading = read(places.at(emission[next]!));
        reading.catch(() => {}); // thrown when that record is asked for
        ahead.push(reading);
      }
      const record = await ahead.shift()!;
      yield { id: emission[consumed]!, record, position: { epoch, consumed: ++consumed } };
    }
    epoch++;
    consumed = 0;
  } while (repeat);
}
