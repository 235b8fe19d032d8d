/**
 * Checks the reader of TFRecord files against expected results: a folder holds `expected.json` and the files
 * it names. Run as `npm run golden:io -- FOLDER...`; exits 1 when any case misses.
 */
import { createHash } from 'node:crypto';
import { realpathSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  type Compression,
  decodeExample,
  decodeRecord,
  type Feature,
  readRecords,
  TfRecordError,
} from '@cohesin/io';

export interface CaseReport {
  readonly file: string;
  /** What differed; empty when the case passes. */
  readonly misses: readonly string[];
}

export interface GoldenIoReport {
  readonly cases: readonly CaseReport[];
  readonly passed: number;
  readonly failed: number;
}

interface ExpectedFeature {
  readonly kind: string;
  readonly n: number;
  readonly lengths?: readonly number[];
  readonly sha256?: string;
  readonly sha256_f32le?: string;
  readonly head?: readonly number[];
  readonly values?: readonly string[];
}

interface ExpectedRecord {
  readonly offset: number;
  readonly length: number;
  readonly sha256: string;
  readonly features?: Readonly<Record<string, ExpectedFeature>>;
}

interface ExpectedError extends Readonly<Record<string, unknown>> {
  readonly kind: string;
  readonly seqLength?: number;
  readonly targetLength?: number;
  readonly numTargets?: number;
}

interface ExpectedCase {
  readonly file: string;
  readonly compression: string;
  readonly ok: boolean;
  readonly bytes?: number;
  readonly uncompressedBytes?: number;
  readonly records?: readonly ExpectedRecord[];
  readonly error?: ExpectedError;
}

interface FoundRecord {
  readonly index: number;
  readonly offset: number;
  readonly data: Uint8Array;
}

/**
 * Reads every file that `dir/expected.json` names and compares.
 *
 * @throws when `expected.json` is missing or is no JSON
 */
export async function checkGoldenIo(dir: string): Promise<GoldenIoReport> {
  const expected = await readExpected(join(dir, 'expected.json'));
  const cases: CaseReport[] = [];
  for (const entry of expected.cases) {
    cases.push({ file: entry.file, misses: await checkCase(join(dir, entry.file), entry) });
  }
  const failed = cases.filter(({ misses }) => misses.length > 0).length;
  return { cases, passed: cases.length - failed, failed };
}

async function readExpected(path: string): Promise<{ readonly cases: readonly ExpectedCase[] }> {
  try {
    return JSON.parse(await readFile(path, 'utf8'));
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : cause;
    throw new Error(`${path}: cannot read the expected results: ${why}`, { cause });
  }
}

async function checkCase(path: string, expected: ExpectedCase): Promise<string[]> {
  const misses: string[] = [];
  const bytes = await stat(path).catch(() => undefined);
  if (!bytes) return ['the file is missing'];
  compare(misses, 'bytes of the file', bytes.size, expected.bytes);
  const { records, error } = await readAll(path, expected.compression.toLowerCase() as Compression);
  if (expected.ok) {
    if (error !== undefined) misses.push(`fails: ${error}`);
    checkRecords(misses, records, expected);
  } else if (expected.error?.seqLength === undefined) {
    checkError(misses, error, expected.error, records.length);
  } else {
    if (error !== undefined) misses.push(`has unsound frames: ${error}`);
    const decoded = decodeAll(path, records, expected.error);
    checkError(misses, decoded.error, expected.error, decoded.count);
  }
  return misses;
}

async function readAll(
  path: string,
  compression: Compression,
): Promise<{ records: FoundRecord[]; error?: unknown }> {
  const records: FoundRecord[] = [];
  try {
    for await (const record of readRecords(path, { compression })) records.push(record);
    return { records };
  } catch (error) {
    return { records, error };
  }
}

/** Decodes until the first fault. */
function decodeAll(
  file: string,
  records: readonly FoundRecord[],
  { seqLength = 0, targetLength = 0, numTargets = 0 }: ExpectedError,
): { count: number; error?: unknown } {
  const shape = { sequenceLengthBp: seqLength, targetLength, numTargets };
  for (const [count, { index, offset, data }] of records.entries()) {
    try {
      decodeRecord(data, shape, { file, recordIndex: index, offset });
    } catch (error) {
      return { count, error };
    }
  }
  return { count: records.length };
}

const SIZES = new Set(['seqLength', 'targetLength', 'numTargets']); // inputs of the decoder, not findings

/** Every field of the expected error must be found in the one thrown, and the records before it read. */
function checkError(
  misses: string[],
  error: unknown,
  expected: ExpectedError | undefined,
  recordsRead: number,
): void {
  if (!(error instanceof TfRecordError)) {
    misses.push(`expected a TfRecordError ${expected?.kind}, found ${error ?? 'no error'}`);
    return;
  }
  const found = new Map<string, unknown>(Object.entries(error));
  for (const [field, value] of Object.entries(expected ?? {})) {
    if (SIZES.has(field)) continue;
    compare(misses, field, plain(found.get(field)), plain(value));
  }
  const readable = expected?.goodRecordsBefore ?? expected?.recordIndex;
  compare(misses, 'records read before the fault', recordsRead, readable ?? error.goodRecordsBefore ?? 0);
}

/** Names of compressions are upper case in expected.json. */
function plain(value: unknown): unknown {
  return typeof value === 'string' ? value.toLowerCase() : value;
}

function checkRecords(misses: string[], records: readonly FoundRecord[], expected: ExpectedCase): void {
  const wanted = expected.records ?? [];
  compare(misses, 'number of records', records.length, wanted.length);
  const framed = records.reduce((sum, { data }) => sum + data.length + 16, 0);
  compare(misses, 'uncompressed bytes', framed, expected.uncompressedBytes);
  for (const [i, record] of records.entries()) {
    const want = wanted[i];
    if (!want) break;
    compare(misses, `record ${i}: offset`, record.offset, want.offset);
    compare(misses, `record ${i}: length`, record.data.length, want.length);
    compare(misses, `record ${i}: sha256`, sha256([record.data]), want.sha256);
    if (want.features) checkFeatures(misses, `record ${i}`, record.data, want.features);
  }
}

function checkFeatures(
  misses: string[],
  where: string,
  data: Uint8Array,
  expected: Readonly<Record<string, ExpectedFeature>>,
): void {
  const example = decodeExample(data);
  const names = (keys: Iterable<string>) => [...keys].sort();
  compare(misses, `${where}: feature names`, names(example.keys()), names(Object.keys(expected)));
  for (const [name, want] of Object.entries(expected)) {
    const found = summarize(example.get(name) ?? { kind: 'none' });
    for (const [field, value] of Object.entries(want)) {
      const got =
        field === 'head' ? found.head?.slice(0, want.head?.length) : found[field as keyof ExpectedFeature];
      const wanted = field === 'head' ? want.head?.map(Math.fround) : value;
      compare(misses, `${where}: ${name}.${field}`, got, wanted);
    }
  }
}

function summarize(feature: Feature): ExpectedFeature {
  switch (feature.kind) {
    case 'none':
      return { kind: 'none', n: 0 };
    case 'bytes': {
      const lengths = feature.values.map(({ length }) => length);
      return { kind: 'bytes', n: lengths.length, lengths, sha256: sha256(feature.values) };
    }
    case 'float': {
      const { buffer, byteOffset, byteLength, length } = feature.values;
      const sha256_f32le = sha256([new Uint8Array(buffer, byteOffset, byteLength)]);
      return { kind: 'float', n: length, sha256_f32le, head: [...feature.values] };
    }
    case 'int64':
      return { kind: 'int64', n: feature.values.length, values: feature.values.map(String) };
  }
}

function sha256(parts: readonly Uint8Array[]): string {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest('hex');
}

/** Notes a difference; an expectation that is absent asks for nothing. */
function compare(misses: string[], what: string, found: unknown, expected: unknown): void {
  if (expected === undefined) return;
  const [got, want] = [JSON.stringify(found), JSON.stringify(expected)];
  if (got !== want) misses.push(`${what}: expected ${want}, found ${got}`);
}

async function main(dirs: readonly string[]): Promise<void> {
  if (dirs.length === 0) throw new Error('usage: npm run golden:io -- FOLDER... (each holds expected.json)');
  for (const dir of dirs) {
    const { cases, passed, failed } = await checkGoldenIo(dir);
    for (const { file, misses } of cases) {
      console.log(misses.length === 0 ? `ok    ${file}` : `MISS  ${file}\n      ${misses.join('\n      ')}`);
    }
    console.log(`${dir}: ${passed} of ${passed + failed} cases pass`);
    if (failed > 0) process.exitCode = 1;
  }
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  await main(process.argv.slice(2)).catch((error: Error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
}
