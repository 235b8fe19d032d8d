import { randomUUID } from 'node:crypto';
import { open, readdir, rename, rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';

/**
 * Lets `write` make a file or a folder under a name beside `path`, then renames it to `path`, so a reader
 * sees the old one or the whole new one, also after a crash. When `write` or the rename fails, nothing is left behind.
 *
 * @throws the failure, with what to do about a full disk, missing rights or a wrong path
 */
export async function replacePath<Result>(
  path: string,
  write: (aside: string) => Promise<Result>,
): Promise<Result> {
  const aside = `${path}.${hostname()}-${process.pid}.${randomUUID()}.partial`;
  try {
    const result = await write(aside);
    await rename(aside, path);
    await syncFolder(dirname(path));
    return result;
  } catch (cause) {
    await rm(aside, { recursive: true, force: true }).catch(() => {}); // the first error is the one to report
    throw explain(path, cause);
  }
}

/** What runs that were killed have left beside a path. */
export interface Leftovers {
  /** Of processes of this machine that are no more. */
  readonly removed: readonly string[];
  /** Of processes that run, or of another machine: they may be written to. */
  readonly kept: readonly string[];
}

/** Removes what `replacePath` was making for `path` in processes that are gone. */
export async function removeLeftovers(path: string): Promise<Leftovers> {
  const [removed, kept]: [string[], string[]] = [[], []];
  const names = await readdir(dirname(path)).catch(() => []);
  for (const name of names) {
    if (!name.startsWith(`${basename(path)}.`)) continue;
    const owner = ASIDE.exec(name.slice(basename(path).length));
    if (owner === null) continue;
    const found = join(dirname(path), name);
    const gone = owner[1] === hostname() && !isRunning(Number(owner[2]));
    if (gone) await rm(found, { recursive: true, force: true });
    (gone ? removed : kept).push(found);
  }
  return { removed, kept };
}

const ASIDE = /^\.(.+)-(\d+)\.[0-9a-f-]{36}\.partial$/;

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return !(error instanceof Error && 'code' in error && error.code === 'ESRCH');
  }
}

/** Writes a new file and waits until it is on the disk. */
export async function writeSynced(path: string, pieces: readonly Uint8Array[]): Promise<void> {
  const handle = await open(path, 'wx');
  try {
    for (const piece of pieces) await handle.writeFile(piece);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Makes a rename durable; some file systems refuse to sync a folder, and then there is nothing to wait for. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  await handle.sync().catch(() => {});
  await handle.close();
}

const ADVICE: Readonly<Record<string, string>> = {
  ENOSPC: 'the disk is full; free some space or choose another folder',
  EDQUOT: 'the disk quota is used up; free some space or choose another folder',
  EROFS: 'the file system is read-only; choose another folder',
  EACCES: 'permission denied; check the rights of the folder',
  ENOENT: 'no such file or folder; check the path',
  ENOTDIR: 'a part of the path is a file; check the path',
  EISDIR: 'this is a folder; give the path of a file',
  ENOTEMPTY: 'the folder is not empty; delete it or choose another',
};

/** `cause` as an error about `path` where it comes from the file system; any other error as it is. */
export function explain(path: string, cause: unknown): unknown {
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
  const advice = ADVICE[code];
  return advice === undefined ? cause : new Error(`${path}: ${code}: ${advice}`, { cause });
}
