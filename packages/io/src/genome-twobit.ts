import { TwoBitFile } from '@gmod/twobit';
import { baseCodes, checkPlace } from './bases.ts';
import type { Genome } from './genome.ts';
import { OpenFile } from './open-file.ts';

/** @throws when the file is damaged */
export async function openTwoBit(path: string): Promise<Genome> {
  const file = await OpenFile.open(path);
  const reader = new TwoBitFile({ filehandle: file });
  const wrap = (cause: unknown): never => {
    throw new Error(`${path}: damaged 2bit file: ${cause instanceof Error ? cause.message : cause}`, {
      cause,
    });
  };
  try {
    const sizes = await reader.getSequenceSizes().catch(wrap);
    const chromosomes = new Map(Object.entries(sizes));
    if (chromosomes.size === 0) throw new Error(`${path}: holds no sequences`);
    return {
      path,
      format: '2bit',
      chromosomes,
      read: async (chrom, startBp, endBp) => {
        checkPlace(path, chromosomes, chrom, startBp, endBp);
        if (startBp === endBp) return new Uint8Array(0);
        const letters = await reader.getSequence(chrom, startBp, endBp).catch(wrap);
        // Beyond the end of a cut file the reader writes "undefined".
        if (letters?.length !== endBp - startBp)
          throw new Error(
            `${path}: ${chrom}:${startBp}-${endBp} cannot be read whole; the file was cut short`,
          );
        return baseCodes(letters, startBp, `${path}: ${chrom}`);
      },
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}
