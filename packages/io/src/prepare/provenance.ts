/** Where a data set is from: every option, hashes of every input, versions, and what the tracks came to. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { explain } from '@cohesin/core';
import type { PrepareOptions } from './options.ts';
import type { PreparePlan } from './plan.ts';
import type { Dropped } from './select.ts';
import { type TrackSummary, trackWarnings } from './track-summary.ts';

export interface InputFile {
  readonly path: string;
  readonly bytes: number;
  readonly sha256: string;
}

/** The contents of `provenance.json`. */
export interface Provenance {
  readonly software: Readonly<Record<string, string>>;
  /** ISO 8601. */
  readonly written: string;
  readonly options: PrepareOptions;
  readonly inputs: readonly InputFile[];
  /** In bp. */
  readonly chromosomes: Readonly<Record<string, number>>;
  /** The tracks' own names of chromosomes, where they differ. */
  readonly renamed: Readonly<Record<string, Readonly<Record<string, string>>>>;
  readonly records: Readonly<Record<string, number>>;
  /** Sequences left out, by why. */
  readonly dropped: Dropped;
  readonly targetLength: number;
  readonly tracks: readonly TrackSummary[];
  readonly warnings: readonly string[];
}

/**
 * Sizes and hashes of the files that options name.
 *
 * @throws when one cannot be read
 */
export async function describeInputs(options: PrepareOptions): Promise<readonly InputFile[]> {
  const { genome, gaps, limit, blacklist, unmappable, peaks, split, tracks } = options;
  const sequences = split.kind === 'sequences' ? split.path : undefined;
  const named = [
    genome,
    gaps,
    limit,
    blacklist,
    unmappable,
    peaks,
    sequences,
    ...tracks.map(({ file }) => file),
  ];
  const inputs: InputFile[] = [];
  for (const path of new Set(named)) if (path !== undefined) inputs.push(await describeFile(path));
  return inputs;
}

/** @throws when it cannot be read */
export async function describeFile(path: string): Promise<InputFile> {
  const hash = createHash('sha256');
  let bytes = 0;
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 20 })) {
      hash.update(chunk);
      bytes += chunk.length;
    }
  } catch (cause) {
    throw explain(path, cause);
  }
  return { path, bytes, sha256: hash.digest('hex') };
}

/** The whole account. */
export async function provenanceOf(
  plan: PreparePlan,
  inputs: readonly InputFile[],
  records: Readonly<Record<string, number>>,
  tracks: readonly TrackSummary[],
): Promise<Provenance> {
  const { options, genome, trackNames, sequences, dropped, targetLength } = plan;
  const used = new Set<string>();
  for (const { chrom } of sequences) used.add(chrom);
  const renamed = options.tracks.flatMap(({ file }, i) => {
    const other = [...trackNames[i]!].filter(([chrom, name]) => chrom !== name);
    return other.length === 0 ? [] : [[file, Object.fromEntries(other)] as const];
  });
  return {
    software: await versions(),
    written: new Date().toISOString(),
    options,
    inputs,
    chromosomes: Object.fromEntries([...genome.chromosomes].filter(([chrom]) => used.has(chrom))),
    renamed: Object.fromEntries(renamed),
    records,
    dropped,
    targetLength,
    tracks,
    warnings: [...plan.warnings, ...trackWarnings(tracks, options.contacts !== undefined)],
  };
}

async function versions(): Promise<Record<string, string>> {
  const manifest = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8'));
  return { [manifest.name]: manifest.version, node: process.version, ...manifest.dependencies };
}
