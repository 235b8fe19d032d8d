import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const SOURCE = fileURLToPath(new URL('../../native/choose-device.c', import.meta.url));
const NAME = 'VK_LAYER_COHESIN_choose_device';
const LIBRARY = 'libcohesin_choose_device.so';
const CHOSEN = 'COHESIN_DEVICE';
const OPENED = 'COHESIN_DEVICE_OPENED';

/**
 * Builds the Vulkan layer that shows one device of several, unless it is in the cache (`$XDG_CACHE_HOME/cohesin`), and has
 * the Vulkan loader of this process use it from now on. It changes nothing until a device is chosen.
 *
 * @throws when there is no C compiler, or it fails.
 */
export function installLayer(): void {
  const folder = layerFolder();
  if (!existsSync(folder)) build(folder);
  addTo('VK_INSTANCE_LAYERS', NAME);
  addTo('VK_ADD_LAYER_PATH', folder);
  process.env.NODEVICE_SELECT = '1'; // Mesa's own layer would put devices in another order
}

/**
 * Runs `open` while the Vulkan loader shows nothing but the device at `place`, and proves that it was this one that was
 * opened. The environment belongs to the whole process: one at a time.
 *
 * @throws when another device was opened, or none.
 */
export async function withDevice<T>(place: number, uuid: string, open: () => Promise<T>): Promise<T> {
  delete process.env[OPENED];
  process.env[CHOSEN] = `${place}`;
  try {
    const result = await open();
    const opened = process.env[OPENED];
    if (opened !== `${place}:${uuid}`)
      throw new Error(
        `device ${place} (${uuid}) was chosen but ${opened === undefined ? 'the Vulkan loader did not ask the layer that chooses' : `${opened} was opened`}; look for VK_* settings of your own, or train on one device`,
      );
    return result;
  } finally {
    delete process.env[CHOSEN];
    delete process.env[OPENED];
  }
}

function layerFolder(): string {
  const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache');
  const version = createHash('sha256').update(readFileSync(SOURCE)).update(process.arch).digest('hex');
  return join(cache, 'cohesin', `choose-device-${version.slice(0, 16)}`);
}

/** Made aside and renamed: processes that start together find it whole or not at all. */
function build(folder: string): void {
  mkdirSync(dirname(folder), { recursive: true });
  const aside = mkdtempSync(`${folder}-`);
  const compiler = process.env.CC ?? 'cc';
  const flags = ['-O2', '-shared', '-fPIC', '-pthread', '-fvisibility=hidden'];
  const { status, stderr, error } = spawnSync(compiler, [...flags, '-o', join(aside, LIBRARY), SOURCE], {
    encoding: 'utf8',
  });
  if (error !== undefined || status !== 0) {
    rmSync(aside, { recursive: true });
    throw new Error(
      `to give each rank a GPU of its own, a Vulkan layer of one C file is compiled once, but ${compiler} ${error === undefined ? `failed:\n${stderr}` : `cannot be run (${error.message})`}. Install a C compiler (Debian: apt-get install gcc libc6-dev), or name one in CC`,
    );
  }
  const layer = {
    ...{ name: NAME, type: 'INSTANCE', library_path: `./${LIBRARY}`, api_version: '1.3.0' },
    ...{ implementation_version: '1', description: 'Shows one physical device of several' },
  };
  writeFileSync(
    join(aside, `${NAME}.json`),
    JSON.stringify({ file_format_version: '1.1.2', layer }, undefined, 2),
  );
  try {
    renameSync(aside, folder);
  } catch (error) {
    rmSync(aside, { recursive: true });
    if (!existsSync(folder)) throw error;
  }
}

/** Adds an entry to a list in the environment, unless it is there. */
function addTo(variable: string, entry: string): void {
  const entries = (process.env[variable] ?? '').split(':').filter((one) => one !== '');
  if (!entries.includes(entry)) process.env[variable] = [...entries, entry].join(':');
}
