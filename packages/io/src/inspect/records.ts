import { existsSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { decodeExample, type Example, type Feature } from '../example.ts';
import { f16ToF32 } from '../float16.ts';
import { percent } from '../page-parts.ts';
import { decodeRecord } from '../record.ts';
import { sniff } from '../sniff.ts';
import { readStatistics } from '../statistics.ts';
import { readRecords } from '../tfrecord.ts';
import { drawRecord } from './draw-record.ts';
import type { InspectOptions } from './inspect.ts';
import { brief, type Notes } from './inspection.ts';

/** Bare TFRecords: framing, compression, features, and what dialect they look like. */
export async function inspectRecords(path: string, notes: Notes, { quick }: InspectOptions): Promise<void> {
  const compression = await compressionOf(path);
  notes.what = `TFRecord file, ${compression}`;
  let [records, bytes] = [0, 0];
  const forms = new Map<string, number>();
  const strange: string[] = [];
  try {
    for await (const { data, index, offset } of readRecords(path)) {
      const example = parse(data);
      if (typeof example === 'string')
        strange.push(
          `record ${index} at byte ${offset} (uncompressed): a sound frame, but its ${data.length} bytes are no tf.train.Example (${example})`,
        );
      else if (records === strange.length) {
        firstRecord(example, notes);
        await drawFirst(path, data, notes);
      }
      const form = typeof example === 'string' ? 'no tf.train.Example' : describe(example);
      forms.set(form, (forms.get(form) ?? 0) + 1);
      records++;
      bytes += data.length;
      if (quick) break;
    }
  } catch (error) {
    notes.problem(error);
  }
  if (strange.length > 0 && strange.length === records)
    notes.warnings.push('none of the records is a tf.train.Example: the file is of another kind');
  else if (strange.length > 0)
    notes.problems.push(`${path}: ${strange.length} of ${records} records: ${strange[0]}`);
  notes.fact(quick ? 'records looked at' : 'records that can be read', records);
  notes.fact('bytes of records', bytes);
  notes.tables.push({
    header: ['records', 'features'],
    rows: [...forms].map(([form, count]) => [String(count), form]),
  });
  if (forms.size > 1) notes.warnings.push(`records have ${forms.size} different forms`);
  if (records === 0 && notes.problems.length === 0)
    notes.warnings.push('the file is sound and holds no records; basenji leaves such files');
}

/** A picture of the record, where the folder above holds the `statistics.json` that its shape is in. */
async function drawFirst(path: string, data: Uint8Array, notes: Notes): Promise<void> {
  const folder = dirname(dirname(resolve(path)));
  if (!existsSync(join(folder, 'statistics.json'))) return;
  try {
    const statistics = await readStatistics(folder);
    const place = { file: path, recordIndex: 0, offset: 0 };
    const { sequence, targets } = decodeRecord(data, statistics, place, { allowNonFinite: true });
    const values = targets.dtype === 'f16' ? f16ToF32(targets.data) : targets.data;
    drawRecord({ ...statistics, targets: [] }, { sequence, values }, notes);
    notes.caption = `first record, in the shape of ${join(folder, 'statistics.json')}`;
  } catch (error) {
    notes.warnings.push(`no picture: ${(error as Error).message}`);
  }
}

async function compressionOf(path: string): Promise<string> {
  const handle = await open(path, 'r');
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(64), 0, 64, 0);
    const looks = sniff(buffer.subarray(0, bytesRead));
    return {
      none: 'not compressed',
      zlib: 'ZLIB',
      gzip: 'GZIP',
      text: 'text',
      unknown: 'damaged or of another kind',
    }[looks];
  } finally {
    await handle.close();
  }
}

/** The Example, or why the bytes are none. */
function parse(data: Uint8Array): Example | string {
  try {
    const example = decodeExample(data);
    return example.size === 0 ? 'no features' : example;
  } catch (error) {
    return (error as Error).message;
  }
}

/** Names, kinds and sizes, in order of the names: writers order them at random. */
function describe(example: Example): string {
  const features = [...example].toSorted(([a], [b]) => (a < b ? -1 : 1));
  return features.map(([name, feature]) => `${name}: ${sizeOf(feature)}`).join('; ') || 'none';
}

function sizeOf(feature: Feature): string {
  if (feature.kind === 'none') return 'empty';
  if (feature.kind !== 'bytes') return `${feature.values.length} ${feature.kind}`;
  return `${feature.values.map(({ length }) => length).join(' + ')} bytes`;
}

/** What the record's sequence and target may be; sizes alone leave the number of tracks open. */
function firstRecord(example: Example, notes: Notes): void {
  const [sequence, target] = [example.get('sequence'), example.get('target')];
  if (sequence?.kind !== 'bytes' || sequence.values.length !== 1) return;
  const bytes = sequence.values[0]!;
  const oneHot = looksOneHot(bytes);
  notes.fact('sequence', `${oneHot ? bytes.length / 4 : bytes.length} bp, ${oneHot ? 'one-hot' : 'codes'}`);
  notes.fact('begins', letters(bytes, oneHot).slice(0, 60));
  if (target?.kind !== 'float' && target?.kind !== 'bytes') return;
  const values = target.kind === 'float' ? target.values : f16Values(target.values[0] ?? new Uint8Array());
  notes.fact(
    'target',
    `${values.length} values as ${target.kind === 'float' ? 'floats' : 'f16'}; bins × tracks, which statistics.json or the writer knows`,
  );
  if (values.length === 0) return;
  const zeros = values.filter((value) => value === 0).length;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  notes.fact(
    'of the first record',
    `mean ${brief(mean)}, ${percent(zeros / values.length)} zero, first values ${[...values.subarray(0, 6)].map(brief).join(' ')}`,
  );
  const wrong = values.filter((value) => !Number.isFinite(value)).length;
  if (wrong > 0) notes.warnings.push(`${wrong} values of the first record's target are NaN or infinite`);
  notes.fact('dialect', dialect(oneHot, target.kind, example.has('genome')));
}

function dialect(oneHot: boolean, target: 'float' | 'bytes', genome: boolean): string {
  if (genome) return 'Akita: one-hot, upper triangle of a contact map, genome';
  if (target === 'float') return 'basenji 2018: one-hot and floats';
  return oneHot
    ? 'Basenji2 and Enformer as published: one-hot and f16'
    : 'baskerville, Borzoi and current basenji: codes and f16';
}

/** Four bytes of 0 and 1 with at most a single 1 for each base. Codes hold a 2, a 3 or two 1s before long. */
export function looksOneHot(bytes: Uint8Array): boolean {
  if (bytes.length % 4 !== 0) return false;
  for (let i = 0; i < bytes.length; i += 4) {
    if ((bytes[i]! | bytes[i + 1]! | bytes[i + 2]! | bytes[i + 3]!) > 1) return false;
    if (bytes[i]! + bytes[i + 1]! + bytes[i + 2]! + bytes[i + 3]! > 1) return false;
  }
  return true;
}

function letters(bytes: Uint8Array, oneHot: boolean): string {
  if (!oneHot) return Array.from(bytes.subarray(0, 60), (code) => 'ACGTN'[code] ?? '?').join('');
  return Array.from({ length: Math.min(60, bytes.length / 4) }, (_, bp) => {
    const at = bytes.subarray(4 * bp, 4 * bp + 4).indexOf(1);
    return at < 0 ? 'N' : 'ACGT'[at];
  }).join('');
}

function f16Values(bytes: Uint8Array): Float32Array {
  return f16ToF32(new Uint16Array(bytes.slice(0, bytes.length - (bytes.length % 2)).buffer));
}
