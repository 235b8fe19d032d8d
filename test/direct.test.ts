/** Data sets without records: the same bits and orders as written ones, in the library and by the commands. */
import { mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type BatchOptions,
  type Dataset,
  describeDataset,
  inspect,
  openDataset,
  PREPARE_DEFAULTS,
  type PrepareOptions,
  planPrepare,
  type RecordBatch,
  runPrepare,
} from '@cohesin/io';
import { SMALL_BASENJI } from '@cohesin/models/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { cohesin } from './cohesin.ts';
import { writeToy } from './toy-genome.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'direct-'));
  writeToy(folder);
  await make('written', options());
  await make('direct', options());
});
afterAll(() => rm(folder, { recursive: true }));

const inFolder = (name: string): string => join(folder, name);

function options(more: Partial<PrepareOptions> = {}): PrepareOptions {
  const tracks = [
    { identifier: 'a', statistic: 'mean', scale: 1, clip: 12 },
    { identifier: 'b', statistic: 'sum_sqrt', scale: 0.5, clipSoft: 4 },
  ] as const;
  return {
    ...PREPARE_DEFAULTS,
    genome: inFolder('genome.fa'),
    tracks: tracks.map((track) => ({
      ...track,
      ...{ file: inFolder(`${track.identifier}.bw`), description: track.identifier },
    })),
    split: { kind: 'chromosomes', valid: ['chrII'], test: ['chrIII'] },
    ...{ sequenceLengthBp: 300, cropBp: 30, poolWidthBp: 16, strideTrainBp: 170, strideTestBp: 300 },
    recordsPerShard: 7,
    ...more,
  };
}

/** Written, or only described. */
async function make(name: string, chosen: PrepareOptions): Promise<void> {
  const plan = await planPrepare(chosen);
  try {
    if (name === 'written') await runPrepare(inFolder(name), plan);
    else await describeDataset(inFolder(name), plan);
  } finally {
    await plan.close();
  }
}

/** So many batches, copied: their memory is used again. */
async function batches(set: Dataset, chosen: BatchOptions, count: number): Promise<RecordBatch[]> {
  const found: RecordBatch[] = [];
  for await (const batch of set.batches('train', chosen)) {
    found.push(structuredClone(batch));
    if (found.length === count) break;
  }
  return found;
}

describe('a data set without records', () => {
  const shuffled: BatchOptions = { batch: 4, shuffle: { seed: 3, buffer: 5 }, repeat: true };

  it('gives the batches of the written one to the bit, over epochs, kept in memory or not', async () => {
    const written = await openDataset(inFolder('written'));
    const expected = await batches(written, shuffled, 20); // two epochs of 34 in 5 files, and more
    expect((await readdir(inFolder('direct'))).toSorted()).toEqual([
      'direct.json',
      'sequences.bed',
      'statistics.json',
      'targets.txt',
    ]);
    for (const cacheBytes of [undefined, 0]) {
      const direct = await openDataset(inFolder('direct'), cacheBytes === undefined ? {} : { cacheBytes });
      const { splits: _, stream: __, batches: ___, count, ...same } = direct;
      expect(written).toMatchObject({ ...same, dir: written.dir });
      expect([await count('train'), await count('valid'), await count('test')]).toEqual([34, 13, 16]);
      expect(await batches(direct, shuffled, 20)).toEqual(expected);
      for (const at of [0, 7, 8, 12]) {
        const on = { ...shuffled, position: expected[at]!.position };
        expect(await batches(direct, on, 3)).toEqual(expected.slice(at + 1, at + 4));
      }
    }
  });

  it("gives records that are the caller's, and batches afterwards are as before", async () => {
    const direct = await openDataset(inFolder('direct'));
    const [first] = await batches(direct, { batch: 34 }, 1);
    for await (const { record } of direct.stream('train')) {
      record.sequence.fill(4);
      record.targets.data.fill(0);
    }
    expect(await batches(direct, { batch: 34 }, 1)).toEqual([first]);
    expect(() => direct.stream('fold0')).toThrow('no split fold0; this data set has train, valid, test');
  });

  it('is refused when what it is read from is no more what it was', async () => {
    const chosen = options();
    const bigWig = chosen.tracks[0]!.file;
    const bytes = await readFile(bigWig);
    try {
      await utimes(bigWig, 1e9, 1e9);
      await openDataset(inFolder('direct')); // the same bytes
      await writeFile(
        bigWig,
        bytes.map((byte, i) => (i === bytes.length - 200 ? byte ^ 1 : byte)),
      );
      await expect(openDataset(inFolder('direct'))).rejects.toThrow(
        /a\.bw, which has changed \(\d+ bytes, SHA-256/,
      );
      await rm(bigWig);
      await expect(openDataset(inFolder('direct'))).rejects.toThrow('a.bw, which is not there any more');
    } finally {
      await writeFile(bigWig, bytes);
    }
    await expect(openDataset(inFolder('direct'), { workers: 1 })).rejects.toThrow('direct holds no records');
    const bed = inFolder('direct/sequences.bed');
    const text = await readFile(bed, 'utf8');
    await writeFile(bed, text.replace(/^.*\n/, ''));
    await expect(openDataset(inFolder('direct'))).rejects.toThrow('other sequences than its inputs give now');
    await writeFile(bed, text);
    await expect(make('extremes', options({ extremeQuantile: 0.9 }))).rejects.toThrow(
      'records have to be written for extremeQuantile',
    );
  });

  it('is inspected as it would be written', async () => {
    const [written, direct] = await Promise.all(['written', 'direct'].map((name) => inspect(inFolder(name))));
    expect(direct!.what).toContain('read from a genome and its tracks: 300 bp → 15 bins of 16 bp, 2 tracks');
    expect([direct!.problems, direct!.warnings]).toEqual([written!.problems, written!.warnings]);
    const values = (inspection: typeof written) => inspection!.tables.at(-1)!.rows;
    expect(values(direct)).toEqual(values(written));
    await expect(inspect(inFolder('direct'), { quick: true })).resolves.toMatchObject({ problems: [] });
  });
});

it('trains and resumes by the commands as on records, to the bit', async () => {
  const model = inFolder('params.json');
  const { head_human: head, ...trunk } = SMALL_BASENJI.model;
  await writeFile(
    model,
    JSON.stringify({ ...SMALL_BASENJI, model: { ...trunk, head_human: { ...head, units: 2 } } }),
  );
  const prepare = async (out: string, ...more: string[]) => {
    const inputs = ['--genome', inFolder('genome.fa'), '--tracks', `${inFolder('a.bw')},${inFolder('b.bw')}`];
    const sizes = ['--length', '1024', '--crop', '64', '--bin', '8', '--stride', '170', '--per-file', '9'];
    const { lines, errors } = await cohesin([
      ...[
        'prepare',
        ...inputs,
        ...sizes,
        '--valid',
        'chrII',
        '--test',
        'chrIII',
        '--out',
        inFolder(out),
        ...more,
      ],
    ]);
    expect(errors).toBe('');
    return lines.join('\n');
  };
  await prepare('records');
  expect(await prepare('none', '--direct')).toContain('no records are written');
  const train = async (data: string, out: string, ...more: string[]) => {
    const to = ['--data', inFolder(data), '--out', inFolder(out)];
    const { lines, errors } = await cohesin(['train', '--model', model, ...to, ...more]);
    expect(errors).toBe('');
    return lines.at(-1);
  };
  const whole = await train('records', 'whole', '--steps', '6');
  expect(whole).toMatch(/^weights sha256 [0-9a-f]{64}$/);
  await train('none', 'run', '--steps', '2', '--devices', '2');
  expect(await train('none', 'run', '--steps', '6', '--resume', inFolder('run'))).toBe(whole);
});
