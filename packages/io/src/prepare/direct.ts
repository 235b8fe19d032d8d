/** A data set that is not written: sequences and targets straight from the genome and its tracks. */
import { readPadded } from '../genome.ts';
import type { Interval } from '../intervals.ts';
import { epochOrder } from '../order.ts';
import type { SequenceRecord } from '../record.ts';
import { copied, grouped, type ShardSet } from '../shard-set.ts';
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

export interface DirectOptions {
  /** Records read so far by split and index, which are not read again; grows where given. */
  readonly kept?: Map<string, SequenceRecord> | undefined;
}

/** Records read before they are asked for. */
const AHEAD = 4;

/**
 * Opens every track of a plan, and keeps them open.
 *
 * @throws when one cannot be opened, or the plan clips extreme values
 */
export async function openIntervals(
  plan: PreparePlan,
  { kept }: DirectOptions = {},
): Promise<IntervalDataset> {
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
  const play = (split: string, given: StreamOptions) => {
    const places = chosen(split);
    return inOrder(split, shardSizes(places.length, options.recordsPerShard), given, async (id) => {
      const key = `${split} ${id}`;
      const record = kept?.get(key) ?? (await readRecord(plan, tracks, places.at(id)));
      kept?.set(key, record);
      return record;
    });
  };
  return {
    sequenceLengthBp: options.sequenceLengthBp,
    targetLength,
    numTargets: options.tracks.length,
    sequenceCoded: true,
    splits: Object.fromEntries(
      sequences.splits.map(({ split, count }) => [split, { files: [], records: count }]),
    ),
    count: async (split) => chosen(split).length,
    stream: (split, given = {}) => (kept ? copied(play(split, given)) : play(split, given)),
    batches: (split, { batch, ...given }) => grouped(play(split, given), batch),
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

/** Of the files that `prepare` would write. */
function shardSizes(records: number, recordsPerShard: number): readonly number[] {
  const shards = Math.ceil(records / recordsPerShard);
  return Array.from({ length: shards }, (_, i) => Math.min(recordsPerShard, records - i * recordsPerShard));
}

/** As the records of these shards would come. */
async function* inOrder(
  split: string,
  shards: readonly number[],
  { shuffle, repeat = false, position = { epoch: 0, consumed: 0 } }: StreamOptions,
  read: (id: number) => Promise<SequenceRecord>,
): AsyncGenerator<StreamedRecord, void, undefined> {
  const count = shards.reduce((a, b) => a + b, 0);
  checkPosition(split, count, position);
  let { epoch, consumed } = position;
  do {
    const { emission } = epochOrder(shards, epoch, shuffle);
    const ahead: Promise<SequenceRecord>[] = [];
    for (let next = consumed; consumed < count; ) {
      for (; next < Math.min(count, consumed + AHEAD); next++) {
        const reading = read(emission[next]!);
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
