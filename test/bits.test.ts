import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SMALL_BASENJI } from '@cohesin/models/testing';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { cohesin, SMALL_DATA } from './cohesin.ts';
import { simulateData } from './simulated-data.ts';

const STEPS = 20;

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cohesin-bits-'));
});
afterAll(async () => {
  await rm(dir, { recursive: true, force: true });
});

async function train(args: readonly string[]): Promise<string> {
  const { code, lines, errors } = await cohesin(['train', ...args]);
  expect(errors, lines.join('\n')).toBe('');
  expect(code).toBe(0);
  expect(lines.at(-1)).toMatch(/^weights sha256 [0-9a-f]{64}$/);
  return lines.at(-1)!;
}

/**
 * Trains on 1, 2, 3 and 4 devices, on 3 with a sharded optimizer, then is killed half-way on two that shard theirs and
 * resumed on three that do not: one hash.
 */
async function sameBits(name: string, common: readonly string[]): Promise<void> {
  const hashes: string[] = [];
  for (const devices of [1, 2, 3, 4]) {
    const out = ['--out', join(dir, `${name}-${devices}`), ...(devices === 3 ? ['--shard-optimizer'] : [])];
    hashes.push(await train([...common, ...out, '--devices', String(devices)]));
  }
  const out = join(dir, `${name}-killed`);
  const killed = await cohesin(
    [
      'train',
      ...[
        ...common,
        '--out',
        out,
        '--devices',
        '2',
        '--shard-optimizer',
        '--checkpoint-every',
        '4',
        '--json',
      ],
    ],
    10,
  );
  expect(killed.code).not.toBe(0);
  expect((await readdir(join(out, 'checkpoints'))).filter((entry) => /^step-\d+$/.test(entry))).toContain(
    'step-00000008',
  );
  hashes.push(await train([...common, '--out', out, '--resume', out, '--devices', '3']));
  expect(new Set(hashes), hashes.join('\n')).toHaveProperty('size', 1);
}

describe('the same weights on any number of devices, also after a kill', () => {
  test.each([
    ['sequence', 1],
    ['step', 1],
    ['sequence', 4],
  ] as const)(
    'a small Basenji2, batch norm over each %s, sequences cut into %s',
    async (group, parts) => {
      const data = await simulateData(join(dir, `${group}-${parts}`), {
        ...SMALL_DATA,
        sequences: { train: 20, valid: 3 },
      });
      const model = join(dir, `${group}-${parts}.json`);
      await writeFile(model, JSON.stringify(SMALL_BASENJI));
      await sameBits(`${group}-${parts}`, [
        '--model',
        model,
        '--data',
        data,
        '--steps',
        String(STEPS),
        '--seed',
        '11',
        '--batch-norm',
        group,
        '--parts',
        String(parts),
      ]);
    },
    600_000,
  );

  test('Basset as published', async () => {
    const data = await simulateData(join(dir, 'basset'), {
      lengthBp: 600,
      binBp: 600,
      tracks: 164,
      sequences: { train: 40 },
      binary: true,
    });
    await sameBits('basset', [
      '--model',
      'basset',
      '--data',
      data,
      '--steps',
      String(STEPS),
      '--batch',
      '16',
      '--seed',
      '3',
    ]);
  }, 900_000);
});

describe('bad use is refused before work starts, with what to change', () => {
  const refused = async (args: readonly string[], message: RegExp): Promise<void> => {
    const { code, errors } = await cohesin(args);
    expect(errors).toMatch(message);
    expect(code).toBe(78);
  };

  test('unknown model, missing statistics, other target count, too many devices, another model on resume', async () => {
    const data = await simulateData(join(dir, 'refusals'), {
      ...SMALL_DATA,
      tracks: 4,
      sequences: { train: 8 },
    });
    const model = join(dir, 'four.json');
    const head = (units: number): string =>
      JSON.stringify({
        ...SMALL_BASENJI,
        model: { ...SMALL_BASENJI.model, head_human: { ...SMALL_BASENJI.model.head_human, units } },
      });
    await writeFile(model, head(4));
    const five = join(dir, 'five.json');
    await writeFile(five, head(5));
    const out = join(dir, 'refused');
    const rest = ['--data', data, '--out', out];
    await refused(
      ['train', '--model', 'enformr', ...rest],
      /no model is called 'enformr'; there are basset, basenji2/,
    );
    await refused(
      ['train', '--model', model, '--data', join(data, 'tfrecords'), '--out', out],
      /statistics\.json/,
    );
    await refused(['train', '--model', five, ...rest], /tracks: the model has 5, the data 4/);
    await refused(
      ['train', '--model', model, ...rest, '--devices', '9'],
      /--devices is 9 .*at most 8 devices/,
    );
    await refused(['train', '--model', model, ...rest, '--stepz', '9'], /--stepz.*Known options: .*--steps/s);
    await refused(
      ['train', '--model', model, ...rest, '--batch', '0'],
      /--batch is '0'; it must be a whole number/,
    );
    expect(await readdir(out).catch(() => [])).toEqual([]);

    await train(['--model', model, ...rest, '--steps', '1']);
    await refused(
      ['train', '--model', model, ...rest, '--steps', '2'],
      /already holds checkpoints .*--resume/,
    );
    const other = join(dir, 'other.json');
    await writeFile(other, head(4).replace('"filters":8', '"filters":9'));
    await refused(
      ['train', '--model', other, ...rest, '--resume', out],
      /give the same model, or start a new run/,
    );
    await refused(
      ['train', '--model', model, ...rest, '--resume', out, '--seed', '4'],
      /--seed is 4 but the run was started with 0/,
    );
    await refused(
      ['train', '--model', model, ...rest, '--resume', out, '--precision', 'mixed'],
      /--precision is mixed but the run was started with f32/,
    );
    await refused(
      ['train', '--model', model, ...rest, '--resume', join(dir, 'nowhere')],
      /no checkpoint found/,
    );
  }, 300_000);

  test('a disk that fills: named, earlier checkpoints whole, nothing half-written', async ({ skip }) => {
    const out = join(dir, 'small-disk');
    await mkdir(out);
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', out]).status === 0;
    if (!mounted) skip('needs the right to mount a small disk');
    try {
      const data = await simulateData(join(dir, 'full'), {
        ...SMALL_DATA,
        sequences: { train: 8 },
      });
      const model = join(dir, 'full.json');
      await writeFile(model, JSON.stringify(SMALL_BASENJI));
      const { code, errors } = await cohesin([
        'train',
        '--model',
        model,
        '--data',
        data,
        '--out',
        out,
        '--steps',
        '9',
        '--checkpoint-every',
        '1',
      ]);
      expect(errors).toMatch(/small-disk.*ENOSPC: the disk is full; free some space/);
      expect(code).toBe(75);
      const left = await readdir(join(out, 'checkpoints'));
      expect(left.length).toBeGreaterThan(0);
      expect(left.filter((name) => !/^step-\d+$/.test(name))).toEqual([]);
    } finally {
      spawnSync('umount', [out]);
    }
  }, 120_000);
});
