/** Training records of one genome: from its data set, and some of them from a set of background. */
import type { Dataset, RecordBatch, SequenceRecord, Shuffle, StreamPosition } from '@cohesin/io';
import type { Task } from './task.ts';

/** Where a genome's records stand. */
export interface SourcePosition {
  readonly own: StreamPosition;
  readonly negatives: StreamPosition;
  /** Records of both so far. */
  readonly taken: number;
}

export interface SourceBatch extends Pick<RecordBatch, 'records'> {
  readonly position: SourcePosition;
}

const START: StreamPosition = { epoch: 0, consumed: 0 };

/** Training sequences an epoch has: each of the data set, and its share of background. */
export async function recordsPerEpoch({
  dataset,
  negatives,
}: Pick<Task, 'dataset' | 'negatives'>): Promise<number> {
  return Math.floor((await dataset.count('train')) * (1 + (negatives?.ratio ?? 0)));
}

interface SourceOptions {
  readonly batch: number;
  readonly shuffle: Shuffle;
  readonly position: SourcePosition | undefined;
}

/**
 * Batches without end; each is valid until the next is asked for. Background is spread evenly: of each 1 + ratio records,
 * ratio are background; its stream goes on from epoch to epoch, so that each brings others.
 */
export async function* sourceBatches(
  { dataset, negatives }: Pick<Task, 'dataset' | 'negatives'>,
  { batch, shuffle, position }: SourceOptions,
): AsyncGenerator<SourceBatch> {
  const start = position ?? { own: START, negatives: START, taken: 0 };
  if (negatives !== undefined) {
    const stream = (from: Dataset, position: StreamPosition): Stream =>
      from.stream('train', { shuffle, repeat: true, position });
    const streams = [stream(dataset, start.own), stream(negatives.dataset, start.negatives)] as const;
    yield* mixed(...streams, { batch, ratio: negatives.ratio, start });
    return;
  }
  for await (const { records, position } of dataset.batches('train', {
    batch,
    shuffle,
    repeat: true,
    position: start.own,
  }))
    yield { records, position: { own: position, negatives: START, taken: 0 } };
}

type Stream = ReturnType<Dataset['stream']>;

async function* mixed(
  main: Stream,
  background: Stream,
  { batch, ratio, start }: { batch: number; ratio: number; start: SourcePosition },
): AsyncGenerator<SourceBatch> {
  const share = ratio / (1 + ratio);
  let { taken, ...positions } = start;
  try {
    for (;;) {
      const records: SequenceRecord[] = [];
      for (; records.length < batch; taken++) {
        const isBackground = Math.floor((taken + 1) * share) > Math.floor(taken * share);
        const { value } = await (isBackground ? background : main).next();
        records.push(value!.record);
        positions[isBackground ? 'negatives' : 'own'] = value!.position;
      }
      yield { records, position: { ...positions, taken } };
    }
  } finally {
    await main.return(undefined);
    await background.return(undefined);
  }
}
