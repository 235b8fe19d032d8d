/** What `prepare` holds in memory, worked out before it starts. */
import { isFragments } from '../fragment-ends.ts';
import type { Findings } from './names.ts';
import type { PrepareOptions } from './options.ts';

export interface MemoryPlan {
  /** Sequences whose targets are held together. */
  readonly groupSize: number;
  /** Sequences that a thread is given at a time. */
  readonly placesPerJob: number;
  /** The whole process at most, in bytes, by what takes it. */
  stated(
    threads: number,
    sequences: number,
  ): Readonly<Record<'program' | 'threads' | 'lists' | 'ends' | 'targets', number>>;
}

/** Node, the readers and their garbage. Measured: benchmarks/results/data.md. */
const PROGRAM_BYTES = 160 * 2 ** 20;
const THREAD_BYTES = 96 * 2 ** 20;
/** Of a window, while it is read and binned: values and their copies for each bp, or each stage of a map for each pair of bins. */
const BYTES_PER_BP = 16;
const BYTES_PER_PAIR = 128;
/** Targets that a thread is given at a time. */
const JOB_BYTES = 2 ** 21;
const MOST_PLACES_PER_JOB = 32; // more would make progress jump

/** Share of the memory for windows that ends of fragments may take. */
const ENDS_SHARE = 0.25;

/** Of the ends of fragments in a file without an index, so many bytes are held in memory; the others go to disk. */
export function endsBytesPerTrack({ tracks, memoryBytes }: PrepareOptions): number {
  const files = tracks.filter(({ file }) => isFragments(file)).length;
  return Math.floor((ENDS_SHARE * memoryBytes) / Math.max(1, files));
}

interface Held {
  readonly targetLength: number;
  /** Of sequences and of sets of places. */
  readonly listBytes: number;
  /** Tracks of fragments without an index. */
  readonly fragments: number;
}

/** Lists and ends come first, targets get the rest. Notes an error when lists leave no room for them. */
export function planMemory(options: PrepareOptions, held: Held, findings: Findings): MemoryPlan {
  const { memoryBytes, tracks, sequenceLengthBp, poolWidthBp, contacts } = options;
  const { targetLength, listBytes, fragments } = held;
  const ends = fragments * endsBytesPerTrack(options);
  const room = memoryBytes - ends - listBytes;
  if (room <= 0)
    findings.errors.push(
      `the lists of sequences and places take ${inMib(listBytes)} MiB, but memoryBytes leaves ${inMib(memoryBytes - ends)} for them; give more memory, a longer stride, or a sample`,
    );
  const bytesPerSequence = 2 * targetLength * tracks.length;
  const groupSize = Math.max(1, Math.floor(room / bytesPerSequence));
  const placesPerJob = Math.min(MOST_PLACES_PER_JOB, Math.max(1, Math.floor(JOB_BYTES / (2 * targetLength))));
  const windowBytes = contacts
    ? BYTES_PER_PAIR * (sequenceLengthBp / poolWidthBp) ** 2
    : BYTES_PER_BP * sequenceLengthBp;
  const perThread = THREAD_BYTES + windowBytes + 2 * Math.max(JOB_BYTES, 2 * targetLength);
  return {
    groupSize,
    placesPerJob,
    stated: (threads, sequences) => ({
      program: PROGRAM_BYTES + (threads === 0 || fragments > 0 ? windowBytes : 0),
      threads: threads * perThread,
      lists: listBytes,
      ends,
      targets: Math.min(groupSize, sequences) * bytesPerSequence,
    }),
  };
}

function inMib(bytes: number): string {
  return (bytes / 2 ** 20).toPrecision(3);
}
