/** `targets.txt`: one row per track, tab-separated, columns named by a header. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

export interface TargetTrack {
  readonly identifier: string;
  readonly description: string;
  /** The track, by its place in the table, that this one turns into on the other strand: itself if unstranded. */
  readonly strandPair?: number;
  /** Every column as written, by its header; the first, nameless one is `index`. */
  readonly columns: Readonly<Record<string, string>>;
}

/** A row to write: further columns between the identifier and the description. */
export interface TargetRow extends Omit<TargetTrack, 'columns'> {
  readonly columns?: Readonly<Record<string, string>>;
}

/** The tracks of the data set in `dir`, none when it has no table. @throws as `parseTargets` */
export async function readTargets(dir: string, numTargets: number): Promise<readonly TargetTrack[]> {
  const path = join(dir, 'targets.txt');
  try {
    return parseTargets(await readFile(path, 'utf8'), path, numTargets);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return [];
    throw error;
  }
}

/**
 * The tracks of a `targets.txt`.
 *
 * @throws when a row has another number of columns than the header, a strand pair names no row, or there are
 *   not `numTargets` rows
 */
export function parseTargets(text: string, path: string, numTargets?: number): readonly TargetTrack[] {
  const [header = '', ...lines] = text.split(/\r?\n/).filter((line) => line !== '');
  const names = header.split('\t').map((name) => name || 'index');
  if (numTargets !== undefined && lines.length !== numTargets) {
    throw new Error(
      `${path}: ${lines.length} tracks but statistics.json says num_targets ${numTargets}; this table belongs to another data set`,
    );
  }
  const rows = lines.map((line, row) => parseRow(line, names, `${path}: line ${row + 2}`));
  const rowOfIndex = new Map(rows.map((columns, row) => [columns.index ?? String(row), row]));
  return rows.map((columns, row) => toTrack(columns, rowOfIndex, `${path}: line ${row + 2}`));
}

/** The text of a `targets.txt` for these tracks. */
export function formatTargets(tracks: readonly TargetRow[]): string {
  const stranded = tracks.some(({ strandPair }) => strandPair !== undefined);
  const further = Object.keys(tracks[0]?.columns ?? {});
  const header = ['', 'identifier', ...further, ...(stranded ? ['strand_pair'] : []), 'description'];
  const rows = tracks.map(({ identifier, description, strandPair, columns }, row) => {
    const pair = stranded ? [String(strandPair ?? row)] : [];
    const cells = [
      String(row),
      identifier,
      ...further.map((name) => columns?.[name] ?? ''),
      ...pair,
      description,
    ];
    return cells.map((cell) => cell.replaceAll(/[\t\r\n]/g, ' '));
  });
  return [header, ...rows].map((cells) => `${cells.join('\t')}\n`).join('');
}

function parseRow(line: string, names: readonly string[], where: string): Record<string, string> {
  const cells = line.split('\t');
  if (cells.length !== names.length) {
    throw new Error(
      `${where}: ${cells.length} columns but the header has ${names.length}; columns are separated by tabs`,
    );
  }
  return Object.fromEntries(names.map((name, column) => [name, cells[column]!]));
}

function toTrack(
  columns: Readonly<Record<string, string>>,
  rowOfIndex: ReadonlyMap<string, number>,
  where: string,
): TargetTrack {
  const { identifier = '', description = '', strand_pair: pair = '' } = columns;
  if (pair === '') return { identifier, description, columns };
  const strandPair = rowOfIndex.get(pair);
  if (strandPair === undefined) {
    throw new Error(`${where}: strand_pair ${pair} names no track; it should be the index of another row`);
  }
  return { identifier, description, strandPair, columns };
}
