import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DecodeThreads } from './decode-threads.ts';
import { f32ToF16 } from './float16.ts';
import { Pipeline, type PipelineOptions } from './pipeline.ts';
import { encodeRecord } from './record.ts';
import { writeRecords } from './record-writer.ts';
import type { StreamedRecord } from './shards.ts';

const SHAPE = { sequenceLengthBp: 8, targetLength: 2, numTargets: 1 };
const PER_SHARD = 40;
let folder: string;
let files: string[];

/** Record i holds i in its targets. */
const record = (i: number) =>
  encodeRecord({
    sequence: new Uint8Array(8).fill(i % 4),
    targets: { dtype: 'f16', data: f32ToF16([i, -i]) },
  });

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pipeline-'));
  files = [0, 1, 2].map((shard) => join(folder, `${shard}.tfr`));
  for (const [shard, file] of files.entries()) {
    await writeRecords(
      file,
      Array.from({ length: PER_SHARD }, (_, i) => record(shard * PER_SHARD + i)),
    );
  }
});
afterAll(() => rm(folder, { recursive: true }));

const pipeline = (options: Partial<PipelineOptions>): Pipeline =>
  new Pipeline({
    ...{ files, recordsPerShard: [PER_SHARD, PER_SHARD, PER_SHARD], shape: SHAPE, allowNonFinite: false },
    ...{ workers: 0, repeat: true, position: { epoch: 0, consumed: 0 }, lent: 4, ...options },
  });

/** Counts what is asked of the decoder and what is done. */
function counted({ decoder }: Pipeline): { asked: number; done: number } {
  const count = { asked: 0, done: 0 };
  const decode = decoder.decode.bind(decoder);
  decoder.decode = async (request) => {
    count.asked++;
    const decoded = await decode(request);
    count.done++;
    return decoded;
  };
  return count;
}

describe('the pipeline of records', () => {
  it.each([
    ['in file order', 0, {}, 4 + 4],
    ['shuffled', 0, { shuffle: { seed: 3, buffer: 10 } }, 10 + 4 + 4],
    ['in three threads', 3, { shuffle: { seed: 3, buffer: 10 }, lent: 1 }, 10 + 1 + 6],
  ] as const)('%s decodes into all of its slots and no further', async (_, workers, options, slots) => {
    const running = pipeline({ workers, ...options });
    const count = counted(running);
    expect(running.slots.memory.length).toBe(slots);
    const records = running.records();
    const { lent = 4 } = options as { lent?: number };
    for (let taken = 1; taken <= 300; taken++) {
      await records.next();
      // The caller keeps `lent`; every other slot holds a record, or waits for one.
      expect(count.asked).toBe(slots + Math.max(0, taken - lent));
      expect(running.slots.inUse).toBe(slots);
    }
    while (count.done < count.asked) await new Promise(setImmediate); // a caller that is busy
    expect(count.asked).toBe(slots + 300 - lent);
    await records.return();
  });

  it('leaves a record alone while the caller keeps it', async () => {
    const records = pipeline({ lent: 5, shuffle: { seed: 1, buffer: 7 } }).records();
    const kept: StreamedRecord[] = [];
    for (let taken = 0; taken < 150; taken++) {
      kept.push((await records.next()).value!);
      for (const { id, record: own } of kept.slice(-5)) {
        expect(own.targets.data).toEqual(f32ToF16([id, -id]));
        expect(own.sequence).toEqual(new Uint8Array(8).fill(id % 4));
      }
    }
    await records.return();
  });

  it('says which record a thread was at when it ended, and does not wait for it', async () => {
    const running = pipeline({ workers: 2, shuffle: { seed: 1, buffer: 4 } });
    const records = running.records();
    await records.next();
    await (running.decoder as DecodeThreads).threads[0]!.worker.terminate();
    const rest = async () => {
      for await (const _ of records);
    };
    await expect(rest()).rejects.toThrow(
      /record \d+ of .*\d\.tfr: not decoded, thread decode-0 ended with code 1; go on from the last checkpoint/,
    );
    const threads = new DecodeThreads(1, { shape: SHAPE, allowNonFinite: false, slots: [] });
    await threads.threads[0]!.worker.terminate();
    await expect(threads.count(files[0]!)).rejects.toThrow('0.tfr: not decoded, thread decode-0 ended');
    await threads.close();
  });

  it('gives every record before a damaged one, then says where the damage is', async () => {
    const damaged = join(folder, 'damaged.tfr');
    const records = Array.from({ length: 9 }, (_, i) => record(i));
    records[6] = encodeRecord({
      sequence: new Uint8Array(8),
      targets: { dtype: 'f16', data: Uint16Array.of(0, 0x7c00) },
    });
    await writeRecords(damaged, records);
    for (const workers of [0, 2]) {
      const ids: number[] = [];
      const read = async () => {
        const options = { workers, files: [damaged], recordsPerShard: [9] };
        for await (const { id } of pipeline(options).records()) ids.push(id);
      };
      await expect(read()).rejects.toThrow(
        /damaged\.tfr: record 6 at byte \d+ \(uncompressed\): feature target: non-finite-target/,
      );
      expect(ids).toEqual([0, 1, 2, 3, 4, 5]);
    }
  });
});
