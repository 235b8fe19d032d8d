/** DNA by place: FASTA (plain or BGZF) and 2bit behind one small interface. */
import { open } from 'node:fs/promises';
import { explain } from '@cohesin/core';
import { openFasta } from './genome-fasta.ts';
import { openTwoBit, TWO_BIT_MAGIC } from './genome-twobit.ts';

/** A genome on disk. Close it. */
export interface Genome {
  readonly path: string;
  readonly format: 'FASTA' | 'FASTA in BGZF' | '2bit';
  /** Length of each chromosome in bp, in the order of the file. */
  readonly chromosomes: ReadonlyMap<string, number>;
  /**
   * Codes 0..3 for A, C, G, T in either case, 4 for any other letter. `[endBp - startBp]`
   *
   * @throws for an unknown chromosome, a place outside it, or a file that is damaged there
   */
  read(chrom: string, startBp: number, endBp: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

/**
 * The genome in a file, whose kind its first bytes say. Makes `.fai` and `.gzi` beside a FASTA that lacks them.
 *
 * @throws when the file is no genome, is compressed with plain gzip, or does not fit its index
 */
export async function openGenome(path: string): Promise<Genome> {
  const start = await firstBytes(path, 16);
  const magics = start.length >= 4 ? [start.readUInt32LE(0), start.readUInt32BE(0)] : [];
  if (magics.includes(TWO_BIT_MAGIC)) return await openTwoBit(path);
  if (start[0] === 0x1f && start[1] === 0x8b) {
    const bgzf = start.length >= 14 && start[3] === 4 && start[12] === 0x42 && start[13] === 0x43; // "BC"
    if (bgzf) return await openFasta(path, 'bgzf');
    throw new Error(
      `${path}: plain gzip has no random access; run \`gunzip -c ${path} | bgzip > OTHER.fa.gz\`, or gunzip it`,
    );
  }
  if (start[0] === '>'.charCodeAt(0)) return await openFasta(path, 'plain');
  throw new Error(
    `${path}: no genome: expected FASTA (a first line with >), BGZF FASTA or 2bit, found bytes ${start.subarray(0, 8).toString('hex')}`,
  );
}

/**
 * As `genome.read`, with N beyond the ends of the chromosome.
 *
 * @throws as `genome.read`
 */
export async function readPadded(
  genome: Genome,
  chrom: string,
  startBp: number,
  endBp: number,
): Promise<Uint8Array> {
  const length = genome.chromosomes.get(chrom) ?? 0;
  const start = Math.min(Math.max(startBp, 0), length);
  const end = Math.min(Math.max(endBp, start), length);
  const inside = await genome.read(chrom, start, end);
  if (inside.length === endBp - startBp) return inside;
  const codes = new Uint8Array(endBp - startBp).fill(4);
  codes.set(inside, start - startBp);
  return codes;
}

async function firstBytes(path: string, count: number): Promise<Buffer> {
  const handle = await open(path, 'r').catch((cause: unknown) => {
    throw explain(path, cause);
  });
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(count), 0, count, 0);
    return buffer.subarray(0, bytesRead);
  } catch (cause) {
    throw explain(path, cause);
  } finally {
    await handle.close();
  }
}
