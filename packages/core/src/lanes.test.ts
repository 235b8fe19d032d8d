import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { Device } from './device.ts';
import type { LaneResults } from './testing/lanes.ts';
import { expectClose, GRADIENT_TOLERANCE } from './testing/values.ts';

// Processes always run the built file. `../dist` is the same place seen from `src/` and from `dist/`.
const PROGRAM = fileURLToPath(new URL('../dist/testing/lanes.js', import.meta.url));

/** In a process with a shader cache of its own: one filled at another width gives wrong kernels. */
async function resultsAt(bits: number, cache: string): Promise<LaneResults> {
  const env = {
    ...process.env,
    LP_NATIVE_VECTOR_WIDTH: `${bits}`,
    MESA_SHADER_CACHE_DIR: join(cache, `${bits}`),
  };
  const { stdout } = await promisify(execFile)(process.execPath, [PROGRAM], { env, maxBuffer: 2 ** 26 });
  return JSON.parse(stdout) as LaneResults;
}

// Sums may be cut by lanes, and exp and rsqrt are the driver's own: what a chain of such sums differs by in f32.
test('adapters of 4, 8 and 16 lanes agree within f32 rounding', async ({ skip }) => {
  const device = await Device.open();
  const { description } = device.info;
  await device.close();
  skip(!description.includes('llvmpipe'), `${description}: only llvmpipe can be told its number of lanes`);
  const cache = await mkdtemp(join(tmpdir(), 'cohesin-lanes-'));
  try {
    const results = await Promise.all([128, 256, 512].map((bits) => resultsAt(bits, cache)));
    expect(results.map(({ subgroupSizes }) => subgroupSizes)).toEqual([
      [4, 4],
      [8, 8],
      [16, 16],
    ]);
    const [four, ...others] = results;
    for (const { description: other, values } of others) {
      for (const [name, expected] of Object.entries(four!.values)) {
        expectClose(`${name} on ${other}`, values[name]!, expected, GRADIENT_TOLERANCE);
      }
    }
  } finally {
    await rm(cache, { recursive: true });
  }
});
