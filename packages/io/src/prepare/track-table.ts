/** Tracks from a `targets.txt`: index, identifier, file, clip, clip_soft, scale, sum_stat, strand_pair, description;
 * of fragments strand (+, -, both), shift_plus and shift_minus too; role (control) of tracks that models read. */
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { explain } from '@cohesin/core';
import type { FragmentOptions } from '../fragment-ends.ts';
import { parseTargets, type TargetTrack } from '../targets-table.ts';
import type { TrackSource } from './options.ts';
import { SUM_STATISTICS, type SumStatistic } from './targets.ts';

const COLUMNS = [
  'index',
  'identifier',
  'file',
  'clip',
  'clip_soft',
  'scale',
  'sum_stat',
  'strand_pair',
  'strand',
  'shift_plus',
  'shift_minus',
  'role',
  'description',
];
const PASSED_OVER = ['genome'];

/**
 * The tracks of a table in basenji's form. Files are relative to the table's folder.
 *
 * @throws when the table cannot be read, has a column that is not known, lacks `file`, or holds a number that is none
 */
export async function readTrackTable(path: string): Promise<readonly TrackSource[]> {
  const text = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw explain(path, cause);
  });
  const rows = parseTargets(text, path);
  const names = Object.keys(rows[0]?.columns ?? {});
  const strange = names.filter((name) => !COLUMNS.includes(name) && !PASSED_OVER.includes(name));
  if (strange.length > 0 || (rows.length > 0 && !names.includes('file'))) {
    throw new Error(
      `${path}: ${strange.length > 0 ? `column ${strange.join(', ')} is not known` : 'there is no column file'}; the columns, separated by tabs, are (nameless index) ${COLUMNS.slice(1).join(', ')}`,
    );
  }
  return rows.map((row, i) => toSource(row, dirname(path), `${path}: line ${i + 2}`));
}

function toSource(
  { identifier, description, strandPair, columns }: TargetTrack,
  folder: string,
  where: string,
): TrackSource {
  const { file = '', clip, clip_soft: soft, scale, sum_stat: statistic } = columns;
  if (file === '') throw new Error(`${where}: column file is empty`);
  const hard = number(clip, 'clip', where);
  const clipSoft = number(soft, 'clip_soft', where);
  const fragments = toFragments(columns, where);
  const { role = '' } = columns;
  if (!['', 'target', 'control'].includes(role))
    throw new Error(`${where}: role is ${JSON.stringify(role)}; choose target or control`);
  return {
    file: resolve(folder, file),
    identifier: identifier || file,
    description,
    statistic: toStatistic(statistic, where),
    scale: number(scale, 'scale', where) ?? 1,
    ...(hard === undefined ? {} : { clip: hard }),
    ...(clipSoft === undefined ? {} : { clipSoft }),
    ...(fragments && { fragments }),
    ...(role === 'control' && { role }),
    ...(strandPair === undefined ? {} : { strandPair }),
  };
}

function toFragments(columns: Readonly<Record<string, string>>, where: string): FragmentOptions | undefined {
  const { strand = '', shift_plus: plus, shift_minus: minus } = columns;
  const shiftBp = [number(plus, 'shift_plus', where) ?? 0, number(minus, 'shift_minus', where) ?? 0] as const;
  if (strand === '' && shiftBp[0] === 0 && shiftBp[1] === 0) return undefined;
  if (strand !== '' && strand !== '+' && strand !== '-' && strand !== 'both')
    throw new Error(`${where}: strand is ${JSON.stringify(strand)}; choose +, - or both`);
  return { strand: strand === '' ? 'both' : strand, shiftBp };
}

function number(cell: string | undefined, column: string, where: string): number | undefined {
  if (cell === undefined || cell.trim() === '' || /^nan$/i.test(cell)) return undefined;
  const value = Number(cell);
  if (Number.isFinite(value)) return value;
  throw new Error(`${where}: ${column} is ${JSON.stringify(cell)}; it must be a number or empty`);
}

/** @throws for a statistic that is not known, naming those that are */
export function toStatistic(name: string | undefined, where: string): SumStatistic {
  if (name === undefined || name === '') return 'sum'; // as basenji_data_read.py
  const found = SUM_STATISTICS.find((known) => known === name.replace(/^avg/, 'mean'));
  if (found) return found;
  throw new Error(`${where}: sum_stat is ${JSON.stringify(name)}; choose ${SUM_STATISTICS.join(', ')}`);
}
