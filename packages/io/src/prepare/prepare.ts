/** From a genome and its tracks to a data set: reads, bins and writes what the plan says. */
import { createWriteStream } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { removeLeftovers } from '@cohesin/core';
import { readPadded } from '../genome.ts';
import { checkVacant, type DatasetExample, writeDataset } from '../write-dataset.ts';
import { holdTo, ValueCounts } from './extremes.ts';
import { beyondBp, type PrepareOptions, type TrackSource } from './options.ts';
import { provenancePage } from './page.ts';
import type { PreparePlan } from './plan.ts';
import { describeInputs, type Provenance, provenanceOf } from './provenance.ts';
import type { PlannedSequences } from './select.ts';
import { clipUnmappable, type TrackTargets } from './target-reader.ts';
import { openTargetSource, type TargetSource } from './target-source.ts';
import { TrackCount, type TrackSummary } from './track-summary.ts';

export interface PrepareResult {
  /** Sequences by split. */
  readonly records: Readonly<Record<string, number>>;
  readonly tracks: readonly TrackSummary[];
  /** What there is to say about the tracks: empty ones, clipped ones. */
  readonly warnings: readonly string[];
}

/** `done` of `total` windows of tracks are read. */
export type PrepareProgress = (done: number, total: number) => void;

export interface RunOptions {
  /** Threads that read and bin tracks; 0 is this one. The data do not depend on it. */
  readonly threads?: number;
  readonly progress?: PrepareProgress;
  /** Is told what runs that were killed had left. */
  readonly note?: (text: string) => void;
}

/**
 * Writes the data set of a plan to the new folder `dir`: the published layout, `contigs.bed`, `mseqs_unmap.npy` where there are
 * unmappable stretches, `provenance.json` and `provenance.html`. Aside first, then renamed. Holds what `plan.memory` states.
 *
 * @throws when `dir` is not empty, an input is damaged, a target is no number, or the disk fails; nothing is then left behind
 */
export async function runPrepare(
  dir: string,
  plan: PreparePlan,
  { threads = 0, progress = () => {}, note = () => {} }: RunOptions = {},
): Promise<PrepareResult> {
  await checkVacant(dir);
  await startOver(dir, note);
  const source = openTargetSource(plan, threads);
  try {
    return await write(dir, plan, source, progress);
  } finally {
    await source.close();
  }
}

async function startOver(dir: string, note: (text: string) => void): Promise<void> {
  const { removed, kept } = await removeLeftovers(dir);
  for (const path of removed)
    note(`an earlier run ended before its data set was whole; starts over, and removed ${path}`);
  for (const path of kept) note(`${path} may be written by another run; delete it if that is no more`);
}

async function write(
  dir: string,
  plan: PreparePlan,
  source: TargetSource,
  progress: PrepareProgress,
): Promise<PrepareResult> {
  const { options, contigs, targetLength } = plan;
  const counts = options.tracks.map(() => new TrackCount());
  const inputs = await describeInputs(options);
  const { extremeQuantile } = options;
  const passes = extremeQuantile === undefined ? 1 : 2;
  const limits =
    extremeQuantile === undefined ? undefined : await findLimits({ plan, source }, extremeQuantile, progress);
  let provenance: Provenance | undefined;
  const records = await writeDataset(dir, {
    sequenceLengthBp: options.sequenceLengthBp,
    targetLength,
    poolWidthBp: options.poolWidthBp,
    cropBp: options.cropBp,
    targets: options.tracks.map((track) => tableRow(track, options)),
    sequence: options.sequence,
    recordsPerShard: options.recordsPerShard,
    examples: examples({ plan, source, counts, limits }, (done, total) =>
      progress((passes - 1) * total + done, passes * total),
    ),
    ...(options.contacts ? { diagonalOffset: options.contacts.diagonalOffset } : {}),
    alsoWrite: async (folder, written) => {
      const rows = contigs.map(
        ({ chrom, startBp, endBp, split }) => `${chrom}\t${startBp}\t${endBp}\t${split}\n`,
      );
      if (rows.length > 0) await writeFile(join(folder, 'contigs.bed'), rows.join(''), { flush: true });
      if (options.unmappable !== undefined)
        await writeUnmappable(join(folder, 'mseqs_unmap.npy'), plan.sequences, targetLength);
      const tracks = counts.map((count, i) => count.summary(options.tracks[i]!));
      provenance = await provenanceOf(plan, inputs, written, tracks);
      await writeFile(join(folder, 'provenance.json'), `${JSON.stringify(provenance, undefined, 2)}\n`, {
        flush: true,
      });
      await writeFile(join(folder, 'provenance.html'), provenancePage(provenance), { flush: true });
    },
  });
  return { records, tracks: provenance!.tracks, warnings: provenance!.warnings };
}

/** Booleans in numpy's format, version 1: `[sequences, bins]`, in the order of `sequences.bed`. */
async function writeUnmappable(path: string, sequences: PlannedSequences, bins: number): Promise<void> {
  const header = `{'descr': '|b1', 'fortran_order': False, 'shape': (${sequences.length}, ${bins}), }`;
  const padded = `${header.padEnd(Math.ceil((header.length + 11) / 64) * 64 - 11)}\n`;
  const head = Buffer.alloc(10);
  head.write('\x93NUMPY\x01\x00', 'latin1');
  head.writeUInt16LE(padded.length, 8);
  async function* parts(): AsyncGenerator<Uint8Array> {
    yield Buffer.concat([head, Buffer.from(padded, 'latin1')]);
    for (const { unmappable } of sequences) yield unmappable!;
  }
  await pipeline(Readable.from(parts()), createWriteStream(path, { flush: true }));
}

/** The columns of basenji's targets.txt, and where there are control tracks `role`. */
export function tableRow(track: TrackSource, { tracks }: PrepareOptions): DatasetTarget {
  const { identifier, description, strandPair, file, clip, clipSoft, scale, statistic, role } = track;
  const columns = {
    file,
    clip: clip === undefined ? '' : String(clip),
    clip_soft: clipSoft === undefined ? '' : String(clipSoft),
    scale: String(scale),
    sum_stat: statistic,
    ...(tracks.some(({ role }) => role) ? { role: role ?? 'target' } : {}),
  };
  return { identifier, description, columns, ...(strandPair === undefined ? {} : { strandPair }) };
}

type DatasetTarget = Parameters<typeof writeDataset>[1]['targets'][number];

interface Reading {
  readonly plan: PreparePlan;
  readonly source: TargetSource;
  /** One a track. */
  readonly counts: readonly TrackCount[];
  /** What each track is held to, if anything. */
  readonly limits: readonly number[] | undefined;
}

async function* examples(reading: Reading, progress: PrepareProgress): AsyncGenerator<DatasetExample> {
  const { sequences, memory, genome, options, targetLength } = reading.plan;
  const { tracks } = options;
  const beyond = beyondBp(options);
  const total = sequences.length * tracks.length;
  const perSequence = targetLength * tracks.length;
  const held = new Uint16Array(Math.min(memory.groupSize, sequences.length) * perSequence);
  for (let from = 0; from < sequences.length; from += memory.groupSize) {
    const count = Math.min(memory.groupSize, sequences.length - from);
    await readGroup(reading, { from, count }, held, (done) => progress(from * tracks.length + done, total));
    for (let i = 0; i < count; i++) {
      const { chrom, startBp, endBp, split, unmappable } = sequences.at(from + i);
      const sequence = await readPadded(genome, chrom, startBp - beyond, endBp + beyond);
      const data = held.subarray(i * perSequence, (i + 1) * perSequence);
      const stored = options.storeUnmappable && unmappable ? { unmappable } : {};
      yield { split, chrom, startBp, endBp, sequence, targets: { dtype: 'f16', data }, ...stored };
    }
  }
}

/** The jobs of all tracks in some sequences, in order, with several under way. Nothing depends on the number of threads. */
async function* readJobs(
  { plan, source }: Pick<Reading, 'plan' | 'source'>,
  group: Group,
): AsyncGenerator<{ column: number; from: number; found: readonly TrackTargets[] }> {
  const { placesPerJob } = plan.memory;
  const underWay: { column: number; from: number; reading: ReturnType<TargetSource['read']> }[] = [];
  for (const column of plan.options.tracks.keys()) {
    for (let from = 0; from < group.count; from += placesPerJob) {
      const end = Math.min(from + placesPerJob, group.count);
      const places = plan.sequences.slice(group.from + from, group.from + end);
      const reading = source.read({ column, places });
      reading.catch(() => {}); // thrown when its turn comes
      underWay.push({ column, from, reading });
      if (underWay.length < source.width) continue;
      const { reading: first, ...job } = underWay.shift()!;
      yield { ...job, found: await first };
    }
  }
  for (const { reading, ...job } of underWay) yield { ...job, found: await reading };
}

/** Sequences whose targets are held together: so many of the plan's. */
interface Group {
  readonly from: number;
  readonly count: number;
}

/** What each track is held to, after all of it was read once. */
async function findLimits(
  reading: Pick<Reading, 'plan' | 'source'>,
  quantile: number,
  progress: PrepareProgress,
): Promise<number[]> {
  const { sequences, options } = reading.plan;
  const limits: number[] = [];
  let counts = new ValueCounts();
  for await (const { column, from, found } of readJobs(reading, { from: 0, count: sequences.length })) {
    for (const { bits } of found) counts.add(bits);
    const done = from + found.length;
    progress(column * sequences.length + done, 2 * sequences.length * options.tracks.length);
    if (done < sequences.length) continue;
    limits.push(Math.abs(counts.quantile(quantile)));
    counts = new ValueCounts();
  }
  return limits;
}

/** Targets of a group of sequences, each `[bins, tracks]`, track by track, into `held`. */
async function readGroup(
  reading: Reading,
  group: Group,
  held: Uint16Array,
  progress: (done: number) => void,
): Promise<void> {
  const { plan, counts, limits } = reading;
  const { options, targetLength, sequences } = plan;
  const count = options.tracks.length;
  for await (const { column, from, found } of readJobs(reading, group)) {
    const limit = limits?.[column];
    for (const [i, values] of found.entries()) {
      const place = sequences.at(group.from + from + i);
      const beyond = limit === undefined ? 0 : holdTo(values.bits, limit);
      clipUnmappable(values.bits, place, options);
      const first = (from + i) * targetLength * count + column;
      for (let at = 0; at < targetLength; at++) held[first + at * count] = values.bits[at]!;
      counts[column]!.add({ ...values, clipped: values.clipped + beyond }, place);
    }
    progress(column * group.count + from + found.length);
  }
}
