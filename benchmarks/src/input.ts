/** What the input pipeline gives on records of Enformer's size, against a plain reader in Python. */

import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { encodeRecord, f32ToF16, openShards, type ShardSet, writeRecords } from '@cohesin/io';
import { numbers } from '@cohesin/io/testing';
import { environment, median, publish, ROOT, table } from './report.ts';

const SHAPE = { sequenceLengthBp: 196_608, targetLength: 896, numTargets: 5313 };
/** As many as are open at once when shuffling, alike in all bytes. */
const SHARDS = 4;
const RECORDS_PER_SHARD = 4;
const ROUNDS = 5;
const WARM_UP = 16;
const MEASURED = 32;
const READER = `${ROOT}benchmarks/src/input.py`;

interface Measured {
  readonly records: number;
  /** In seconds. */
  readonly wall: number;
  /** Of all threads, in seconds. */
  readonly cpu: number;
}

/** Interleaved rounds of the Python reader and of one and two threads, the order of the three turning. */
export async function input(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'input-'));
  try {
    const files = Array.from({ length: SHARDS }, (_, i) => join(folder, `${i}.tfr`));
    const ratio = await writeShards(files);
    const readers: Record<string, () => Measured | Promise<Measured>> = { python: () => python(files) };
    for (const workers of [1, 2]) {
      const set = openShards(files, SHAPE, { workers });
      await set.count('train');
      readers[`${workers}`] = () => drain(set);
    }
    const rounds: Record<string, Measured>[] = [];
    const load = loadavg()[0]!;
    for (let round = 0; round < ROUNDS; round++) {
      const found: Record<string, Measured> = {};
      const names = Object.keys(readers);
      for (const i of names.keys()) {
        const name = names[(i + round) % names.length]!;
        found[name] = await readers[name]!();
      }
      rounds.push(found);
    }
    report(rounds, ratio, load);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Writes one shard and copies it; gives its compression, bytes to a byte. */
async function writeShards(files: readonly string[]): Promise<number> {
  const random = numbers(1);
  let bytes = 0;
  const records = Array.from({ length: RECORDS_PER_SHARD }, () => {
    const record = makeRecord(random);
    bytes += record.length;
    return record;
  });
  await writeRecords(files[0]!, records);
  for (const file of files.slice(1)) copyFileSync(files[0]!, file);
  return bytes / statSync(files[0]!).size;
}

/** One-hot bases, and counts that fall off geometrically, at a scale and rate of each track: about 3:1 under zlib. */
function makeRecord(random: () => number): Uint8Array {
  const { sequenceLengthBp, targetLength, numTargets } = SHAPE;
  const sequence = Uint8Array.from({ length: sequenceLengthBp }, () => Math.floor(4 * random()));
  const tracks = Array.from({ length: numTargets }, () => ({ scale: 0.02 + random(), rate: random() }));
  const targets = new Float32Array(targetLength * numTargets);
  for (let bin = 0; bin < targetLength; bin++) {
    const activity = Math.exp(2 * random() - 1);
    for (const [track, { scale, rate }] of tracks.entries()) {
      const mean = 0.35 * (0.3 + 1.4 * rate) * activity;
      const count = Math.floor(Math.log(random() + 1e-9) / Math.log(mean / (1 + mean)));
      targets[bin * numTargets + track] = count * scale;
    }
  }
  const data = f32ToF16(targets);
  return encodeRecord({ sequence, targets: { dtype: 'f16', data } }, { sequence: 'one-hot' });
}

function python(files: readonly string[]): Measured {
  const { stdout, stderr, status } = spawnSync('python3', [READER, ...files], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${READER}: ${stderr}`);
  return JSON.parse(stdout) as Measured;
}

/** A consumer that does nothing, once the threads are warm: as much is decoded ahead at the end as at the start. */
async function drain(set: ShardSet): Promise<Measured> {
  const batches = set.batches('train', { batch: 1, shuffle: { seed: 0, buffer: 1 }, repeat: true });
  for (let record = 0; record < WARM_UP; record++) await batches.next();
  const [start, before] = [performance.now(), process.cpuUsage()];
  for (let record = 0; record < MEASURED; record++) await batches.next();
  const [wall, { user, system }] = [(performance.now() - start) / 1e3, process.cpuUsage(before)];
  await batches.return();
  return { records: MEASURED, wall, cpu: (user + system) / 1e6 };
}

function report(rounds: readonly Record<string, Measured>[], ratio: number, load: number): void {
  const of = (name: string, measure: 'wall' | 'cpu'): number[] =>
    rounds.map((round) => round[name]!.records / round[name]![measure]);
  const over = (name: string, measure: 'wall' | 'cpu'): number[] => {
    const plain = of('python', measure);
    return of(name, measure).map((rate, i) => rate / plain[i]!);
  };
  const range = (values: readonly number[], digits: number): string =>
    `${median(values).toFixed(digits)} (${Math.min(...values).toFixed(digits)}–${Math.max(...values).toFixed(digits)})`;
  const names = { python: 'Python, one thread', '1': 'one worker', '2': 'two workers' };
  const rows = Object.entries(names).map(([name, title]) => [
    title,
    range(of(name, 'wall'), 1),
    name === 'python' ? '' : range(over(name, 'wall'), 2),
    range(of(name, 'cpu'), 1),
    name === 'python' ? '' : range(over(name, 'cpu'), 2),
  ]);
  const version = spawnSync(
    'python3',
    [
      '-c',
      'import sys, zlib, numpy; print(sys.version.split()[0], zlib.ZLIB_RUNTIME_VERSION, numpy.__version__)',
    ],
    { encoding: 'utf8' },
  ).stdout.trim();
  const text = [
    `${SHARDS} zlib files of ${RECORDS_PER_SHARD} records each: ${SHAPE.sequenceLengthBp} bp one-hot and ${SHAPE.targetLength} × ${SHAPE.numTargets} f16 targets,
seeded, compressed ${ratio.toFixed(2)}:1. ${ROUNDS} interleaved rounds; median (least–most). The pipeline checks both CRCs and that targets are
finite, and gives codes of one byte a base and f16 targets in shared memory to a consumer that does nothing: ${MEASURED} records after ${WARM_UP}. The Python reader (Python, zlib, numpy ${version}) checks no CRC. Bars: 1.3 with one worker, 1.7 with two. CPU time is of all
threads; it does not count waiting for a core, so on a busy machine its ratio says more of one worker than the clock does.`,
    table(['', 'records/s', 'over Python', 'records per CPU second', 'over Python'], rows),
    `Load when it began: ${load.toFixed(1)} on ${availableParallelism()} cores.`,
  ].join('\n\n');
  publish({
    name: 'input',
    title: 'Reading records of full size',
    environment: environment({ device: 'none', description: 'none' }),
    text,
    data: { ratio, rounds },
  });
}
