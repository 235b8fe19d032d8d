import { join } from 'node:path';
import { mix } from '@cohesin/core';
import { type DatasetExample, f32ToF16, writeDataset } from '@cohesin/io';

export interface SimulatedData {
  readonly lengthBp: number;
  readonly binBp: number;
  readonly cropBp?: number;
  readonly tracks: number;
  /** Sequences by split. */
  readonly sequences: Readonly<Record<string, number>>;
  /** Targets of 0 and 1 instead of coverage. */
  readonly binary?: boolean;
}

/** Writes a small data set of hashed bases and targets: no signal, but every code path of a real one. */
export async function simulateData(dir: string, data: SimulatedData): Promise<string> {
  const { lengthBp, binBp, cropBp = 0, tracks } = data;
  const targetLength = (lengthBp - 2 * cropBp) / binBp;
  const targets = Array.from({ length: tracks }, (_, i) => ({
    identifier: `track${i}`,
    description: `simulated ${i}`,
  }));
  const path = join(dir, 'data');
  await writeDataset(path, {
    sequenceLengthBp: lengthBp,
    targetLength,
    poolWidthBp: binBp,
    cropBp,
    targets,
    examples: examples(data, targetLength),
    recordsPerShard: 8,
  });
  return path;
}

async function* examples(
  { lengthBp, tracks, sequences, binary = false }: SimulatedData,
  targetLength: number,
): AsyncGenerator<DatasetExample> {
  let index = 0;
  for (const [split, count] of Object.entries(sequences)) {
    for (let i = 0; i < count; i++, index++) {
      const word = (k: number): number => mix(index, k);
      const sequence = Uint8Array.from({ length: lengthBp }, (_, k) => (k % 97 === 0 ? 4 : word(k) & 3));
      const values = Array.from({ length: targetLength * tracks }, (_, k) =>
        binary ? word(k) & 1 : (word(k) % 64) / 16,
      );
      yield {
        split,
        chrom: 'chr1',
        startBp: index * lengthBp,
        endBp: (index + 1) * lengthBp,
        sequence,
        targets: { dtype: 'f16', data: f32ToF16(values) },
      };
    }
  }
}
