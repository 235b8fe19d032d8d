/** Golden TFRecord files, damaged ones among them, and published data sets where they are at hand. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { decodeExample, encodeRecord, openDataset, openShards, readRecords } from '@cohesin/io';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkGoldenIo } from './golden/src/io.ts';

const FIXTURES = fileURLToPath(new URL('fixtures/io', import.meta.url));
const SHARED = resolve(process.env.COHESIN_SHARED ?? fileURLToPath(new URL('../../shared', import.meta.url)));
const GOLDEN = join(SHARED, 'golden/io');
const REAL = join(SHARED, 'data/tfrecord_real');
const present = (path: string) => existsSync(path);
const skipped = (path: string) => (present(path) ? '' : ` (skipped: ${path} is absent; set COHESIN_SHARED)`);

describe('golden TFRecord files', () => {
  let altered: string;
  beforeAll(async () => {
    altered = await mkdtemp(join(tmpdir(), 'golden-io-'));
    await cp(FIXTURES, altered, { recursive: true });
  });
  afterAll(() => rm(altered, { recursive: true }));

  it('all read as expected', async () => {
    const { cases, passed, failed } = await checkGoldenIo(FIXTURES);
    expect(cases.filter(({ misses }) => misses.length > 0)).toEqual([]);
    expect([passed, failed]).toEqual([72, 0]);
  });

  it('are compared in every stated value, so any other expectation misses', async () => {
    const path = join(altered, 'expected.json');
    const expected = JSON.parse(await readFile(path, 'utf8'));
    for (const entry of expected.cases) {
      if (entry.ok && entry.records.length === 0) entry.records.push({ offset: 0, length: 0, sha256: '' });
      else if (entry.ok) entry.records[0].sha256 = 'other';
      else if ('position' in entry.error) entry.error.position++;
      else if ('track' in entry.error) entry.error.track++;
      else if ('expectedBytes' in entry.error) entry.error.expectedBytes++;
      else if ('compressedStreamEnd' in entry.error) entry.error.compressedStreamEnd++;
      else if ('goodRecordsBefore' in entry.error) entry.error.goodRecordsBefore++;
      else entry.error.kind = 'other';
    }
    await writeFile(path, JSON.stringify(expected));
    const { passed, failed } = await checkGoldenIo(altered);
    expect([passed, failed]).toEqual([0, 72]);
  });
});

describe(`the published dialects${skipped(GOLDEN)}`, () => {
  it.runIf(present(GOLDEN))('all read as expected', { timeout: 60_000 }, async () => {
    const { cases, passed } = await checkGoldenIo(GOLDEN);
    expect(cases.filter(({ misses }) => misses.length > 0)).toEqual([]);
    expect(passed).toBe(92);
  });

  it.runIf(present(GOLDEN)).each([
    ['basenji_index', 'codes', { train: 123, valid: 66, test: 77 }],
    ['basenji_onehot', 'one-hot', { train: 12, valid: 7, test: 8 }],
    ['akita', 'one-hot', { train: 13 }],
  ] as const)(
    '%s opens as a data set, and its bytes come back from the encoder',
    async (name, sequence, counts) => {
      const set = await openDataset(join(GOLDEN, name));
      for (const [split, count] of Object.entries(counts)) {
        expect(await set.count(split)).toBe(count);
        const hashes: string[] = [];
        for await (const { record } of set.stream(split)) {
          hashes.push(hashOf(encodeRecord(record, { sequence })));
        }
        expect(hashes).toEqual(await hashesIn(set.splits[split]!.files));
      }
    },
  );
});

describe(`real data sets${skipped(REAL)}`, () => {
  it.runIf(present(REAL))('baskerville hg38: all records and strand pairs', async () => {
    const set = await openDataset(join(REAL, 'baskerville_tiny/hg38'));
    expect([await set.count('train'), await set.count('valid'), await set.count('test')]).toEqual([
      45, 10, 10,
    ]);
    expect(set).toMatchObject({
      sequenceLengthBp: 131_072,
      targetLength: 2048,
      numTargets: 74,
      poolWidthBp: 32,
    });
    for (const [track, { strandPair }] of set.targets.entries()) {
      expect(set.targets[strandPair!]?.strandPair).toBe(track);
    }
  });

  it.runIf(present(REAL))(
    'basenji cage10: one-hot sequences with a FloatList, without statistics',
    async () => {
      const file = join(REAL, 'basenji_cage10/cage10-train-00000-of-00100.tfrecord');
      const set = openShards([file], { sequenceLengthBp: 262_144, targetLength: 2048, numTargets: 10 });
      expect(await set.count('train')).toBe(10);
      const { value } = await set.stream('train').next();
      expect(value?.record.targets.dtype).toBe('f32');
      expect(new Set(value?.record.sequence)).toEqual(new Set([0, 1, 2, 3]));
    },
  );
});

/** The hash of each record's features, as they are in these files. */
async function hashesIn(files: readonly string[]): Promise<string[]> {
  const hashes: string[] = [];
  for (const file of files) for await (const { data } of readRecords(file)) hashes.push(hashOf(data));
  return hashes;
}

/** A hash of the features of an Example, whatever their order. */
function hashOf(stored: Uint8Array): string {
  const hash = createHash('sha256');
  for (const [name, feature] of [...decodeExample(stored)].sort(([a], [b]) => (a < b ? -1 : 1))) {
    hash.update(`${name} ${feature.kind} `);
    if (feature.kind === 'bytes') for (const value of feature.values) hash.update(value);
    else if (feature.kind !== 'none') hash.update(feature.values.join());
  }
  return hash.digest('hex');
}
