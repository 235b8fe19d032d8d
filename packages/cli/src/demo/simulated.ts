/** The simulated genome as data sets. */
import { type WriteDatasetOptions, writeDataset } from '@cohesin/io';
import { DIAGONAL_OFFSET, simulateMaps } from './contacts.ts';
import { type GenomeOptions, simulateDataset, trackTable } from './genome.ts';

/** Writes tracks in bins of `binBp`. @throws as `writeDataset` */
export async function writeTracks(dir: string, genome: GenomeOptions): Promise<void> {
  await write(dir, genome, {
    targetLength: genome.lengthBp / genome.binBp,
    targets: trackTable(),
    examples: simulateDataset(genome),
  });
}

/** Writes contact maps of bins of `binBp`. @throws as `writeDataset` */
export async function writeMaps(dir: string, genome: GenomeOptions): Promise<void> {
  const rows = genome.lengthBp / genome.binBp - DIAGONAL_OFFSET;
  await write(dir, genome, {
    targetLength: (rows * (rows + 1)) / 2,
    diagonalOffset: DIAGONAL_OFFSET,
    targets: [{ identifier: 'contacts', description: 'log(observed / expected), lowered across CTCF sites' }],
    examples: simulateMaps(genome),
  });
}

async function write(
  dir: string,
  { lengthBp, binBp }: GenomeOptions,
  options: Omit<WriteDatasetOptions, 'sequenceLengthBp' | 'poolWidthBp' | 'cropBp'>,
): Promise<void> {
  await writeDataset(dir, { sequenceLengthBp: lengthBp, poolWidthBp: binBp, cropBp: 0, ...options });
}
