/** What was measured before, in a file: a second run measures only what is new. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { explain, replacePath } from '../replace-file.ts';
import type { TileTimes } from './tune.ts';

/** Times by a hash of adapter, driver, kernel sources and shape. */
export interface TuneCache {
  get(key: string): readonly TileTimes[] | undefined;
  set(key: string, tiles: readonly TileTimes[]): Promise<void>;
}

/** `cohesin/tune.json` in the user's folder for caches (XDG base directories). */
export function defaultTuneCache(env: NodeJS.ProcessEnv = process.env): string {
  const given = env.XDG_CACHE_HOME;
  return join(
    given === undefined || given === '' ? join(homedir(), '.cache') : given,
    'cohesin',
    'tune.json',
  );
}

/** Opens a cache; a missing file is an empty one. @throws when the file cannot be read or is no JSON object. */
export async function openTuneCache(path: string): Promise<TuneCache> {
  const known = await readCache(path);
  return {
    get: (key) => known[key],
    set: async (key, tiles) => {
      known[key] = tiles;
      await mkdir(dirname(path), { recursive: true });
      await replacePath(path, (aside) => writeFile(aside, JSON.stringify(known)));
    },
  };
}

async function readCache(path: string): Promise<Record<string, readonly TileTimes[]>> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as Record<string, readonly TileTimes[]>;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return {};
    if (cause instanceof SyntaxError)
      throw new Error(`${path}: ${cause.message}; delete this file, and all is measured again`, { cause });
    throw explain(path, cause);
  }
}
