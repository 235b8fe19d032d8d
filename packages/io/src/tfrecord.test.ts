import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deflateSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Compression } from './compression.ts';
import { TfRecordError } from './errors.ts';
import { writeRecords } from './record-writer.ts';
import { frameRecord, type ReadRecordsOptions, readRecords } from './tfrecord.ts';

let folder: string;
let path: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tfrecord-'));
  path = join(folder, 'records.tfr');
});
afterAll(() => rm(folder, { recursive: true }));

const records = fc.array(fc.uint8Array({ maxLength: 400 }), { maxLength: 12 });
const compression = fc.constantFrom<Compression>('none', 'zlib', 'gzip');

interface Outcome {
  readonly read: readonly Uint8Array[];
  readonly offsets: readonly number[];
  readonly error?: unknown;
}

async function readAll(file: string, options?: ReadRecordsOptions): Promise<Outcome> {
  const read: Uint8Array[] = [];
  const offsets: number[] = [];
  try {
    for await (const { index, offset, data } of readRecords(file, options)) {
      expect(index).toBe(read.length);
      read.push(new Uint8Array(data));
      offsets.push(offset);
    }
  } catch (error) {
    return { read, offsets, error };
  }
  return { read, offsets };
}

/** Reads these bytes as a file; a fault is returned with the records before it. */
async function readBytes(
  bytes: Uint8Array,
  options?: ReadRecordsOptions,
): Promise<Outcome & { fault?: TfRecordError }> {
  await writeFile(path, bytes);
  const outcome = await readAll(path, options);
  if (outcome.error === undefined) return outcome;
  if (!(outcome.error instanceof TfRecordError)) throw outcome.error;
  expect(outcome.error.goodRecordsBefore ?? 0).toBe(outcome.read.length);
  expect(outcome.error.message).toContain(path);
  return { ...outcome, fault: outcome.error };
}

const framed = (items: readonly Uint8Array[]) => new Uint8Array(Buffer.concat(items.map(frameRecord)));
/** Bytes that do not compress. */
const noise = (length: number, seed: number) => {
  let state = seed;
  return Uint8Array.from({ length }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    return state >>> 24;
  });
};

describe('TFRecord files', () => {
  it('give back what was written, with offsets, declared or sniffed', async () => {
    await fc.assert(
      fc.asyncProperty(records, compression, fc.boolean(), async (items, kind, sniffed) => {
        expect(await writeRecords(path, items, { compression: kind })).toBe(items.length);
        const empty = kind === 'none' && items.length === 0;
        const { read, offsets, error } = await readAll(path, {
          compression: sniffed && !empty ? 'auto' : kind,
        });
        expect(error).toBeUndefined();
        expect(read).toEqual(items);
        let offset = 0;
        for (const [i, item] of items.entries()) {
          expect(offsets[i]).toBe(offset);
          offset += item.length + 16;
        }
      }),
      { numRuns: 60 },
    );
    expect(await readdir(folder)).toEqual(['records.tfr']);
  });

  it('read records larger than the chunks they arrive in', async () => {
    const items = [noise(700_001, 1), new Uint8Array(3_000_000), noise(1, 2), noise(262_144, 3)];
    for (const kind of ['none', 'zlib', 'gzip'] as const) {
      await writeRecords(path, items, { compression: kind });
      const { read, error } = await readAll(path);
      expect(error).toBeUndefined();
      expect(read.map((item, i) => Buffer.compare(item, items[i]!))).toEqual([0, 0, 0, 0]);
    }
  });

  it('report any flipped byte, after the records before it', async () => {
    const items = [noise(50, 4), noise(0, 5), noise(90, 6), noise(17, 7)];
    const sound = framed(items);
    const starts = [0, 66, 82, 188, sound.length];
    for (let at = 0; at < sound.length; at++) {
      const damaged = sound.slice();
      damaged[at]! ^= 0x10;
      const { read, fault } = await readBytes(damaged, { compression: 'none' });
      const record = starts.findIndex((start) => start > at) - 1;
      expect(fault).toMatchObject({ recordIndex: record, offset: starts[record] });
      expect(fault?.kind).toBe(at - starts[record]! < 12 ? 'length-crc' : 'data-crc');
      expect(read).toEqual(items.slice(0, record));
    }
  });

  it('report any flipped bit of a compressed file, but for padding bits that change nothing', async () => {
    const items = [noise(50, 8), new Uint8Array(200), noise(90, 9)];
    const pieces = deflateSync(framed(items));
    await fc.assert(
      fc.asyncProperty(fc.nat(pieces.length - 1), fc.nat(7), async (at, bit) => {
        const damaged = new Uint8Array(pieces);
        damaged[at]! ^= 1 << bit;
        const { read, fault } = await readBytes(damaged, { compression: 'zlib' });
        expect(items.slice(0, read.length)).toEqual(read);
        if (!fault) expect(read.length).toBe(items.length);
      }),
      { numRuns: 150 },
    );
  });

  it('report a file cut anywhere, and read what is whole', async () => {
    const items = [noise(50, 10), noise(90, 11), noise(17, 12)];
    const sound = framed(items);
    for (let length = 1; length < sound.length; length++) {
      const { read, fault } = await readBytes(sound.subarray(0, length), { compression: 'none' });
      const whole = [66, 172].filter((end) => length >= end).length;
      expect(read).toEqual(items.slice(0, whole));
      if (length === 66 || length === 172) expect(fault).toBeUndefined();
      else expect(fault).toMatchObject({ kind: 'truncated-record', recordIndex: whole });
    }
    const squeezed = deflateSync(sound);
    for (let length = 2; length < squeezed.length; length++) {
      const { fault } = await readBytes(squeezed.subarray(0, length), { compression: 'zlib' });
      expect(fault?.kind).toBe('truncated-compressed-stream');
    }
  });

  it('salvage every record before damage deep in a large compressed file', async () => {
    const items = Array.from({ length: 40 }, (_, i) => noise(20_000, 100 + i));
    const squeezed = deflateSync(framed(items), { level: 0 });
    const wrongAdler = new Uint8Array(squeezed);
    wrongAdler[squeezed.length - 1]! ^= 1;
    const whole = await readBytes(wrongAdler);
    expect(whole.fault).toMatchObject({ kind: 'compressed-checksum', goodRecordsBefore: 40 });
    expect(whole.read.length).toBe(40);
    const blockHeader = new Uint8Array(deflateSync(framed(items), { level: 1 }));
    blockHeader.fill(0xff, Math.floor(blockHeader.length * 0.6), Math.floor(blockHeader.length * 0.6) + 3000);
    const part = await readBytes(blockHeader);
    expect(part.fault).toMatchObject({ kind: 'data-crc', goodRecordsBefore: part.read.length });
    expect(part.read.length).toBeGreaterThan(20);
    expect(part.read).toEqual(items.slice(0, part.read.length));
  });

  it('accept gzip members end to end and zero padding, and refuse anything else after a stream', async () => {
    const first = framed([noise(30, 13)]);
    const second = framed([noise(40, 14)]);
    const joined = Buffer.concat([gzipSync(first), gzipSync(second)]);
    expect((await readBytes(joined)).read.length).toBe(2);
    expect((await readBytes(Buffer.concat([joined, new Uint8Array(512)]))).fault).toBeUndefined();
    for (const tail of [Buffer.from('junk'), Buffer.concat([new Uint8Array(9), Buffer.from('x')])]) {
      const { fault } = await readBytes(Buffer.concat([joined, tail]));
      expect(fault).toMatchObject({ kind: 'trailing-compressed-bytes', goodRecordsBefore: 2 });
    }
    const zlib = deflateSync(first);
    for (const tail of [new Uint8Array(1), zlib]) {
      const { fault } = await readBytes(Buffer.concat([zlib, tail]));
      expect(fault).toMatchObject({ kind: 'trailing-compressed-bytes', compressedStreamEnd: zlib.length });
    }
  });

  it('find bytes after a stream that ends where a block of the file does', async () => {
    const block = 256 * 1024;
    const body = framed([noise(block - 16 - 11 - 5 * 4, 15)]); // stored blocks of up to 65 535 bytes
    const squeezed = deflateSync(body, { level: 0 });
    const padded = framed([noise(body.length - 16 + block - squeezed.length, 15)]);
    const exact = deflateSync(padded, { level: 0 });
    expect(exact.length).toBe(block);
    expect((await readBytes(exact)).fault).toBeUndefined();
    const { fault } = await readBytes(Buffer.concat([exact, Buffer.from('tail')]));
    expect(fault).toMatchObject({ kind: 'trailing-compressed-bytes', compressedStreamEnd: block });
  });

  it('take a record of 0x9c78 bytes, whose file begins like zlib, for what it is', async () => {
    const item = noise(0x9c78, 16);
    expect((await readBytes(framed([item]))).read).toEqual([item]);
  });

  it('refuse an empty file unless it is said to be uncompressed', async () => {
    expect((await readBytes(new Uint8Array(0), { compression: 'none' })).fault).toBeUndefined();
    for (const kind of ['zlib', 'gzip', 'auto'] as const) {
      const { fault } = await readBytes(new Uint8Array(0), { compression: kind });
      expect(fault?.kind).toBe('empty-file');
    }
  });

  it('say in full what is wrong and what to do', async () => {
    const damaged = framed([noise(30, 17), noise(30, 18)]);
    damaged[60]! ^= 1;
    const { fault } = await readBytes(damaged);
    expect(fault?.message).toMatch(
      /records\.tfr: record 1 at byte 46 \(uncompressed\): data-crc: expected .* 0x[0-9a-f]{8}, found 0x[0-9a-f]{8} .* 1 record before it can be read\. .* download the file again\./,
    );
  });

  it('say which file cannot be opened or made', async () => {
    const missing = join(folder, 'none', 'x.tfr');
    await expect(readRecords(missing).next()).rejects.toThrow(/none\/x\.tfr: ENOENT: no such file or folder/);
    await expect(readRecords(folder).next()).rejects.toThrow(/EISDIR: this is a folder/);
    await expect(writeRecords(missing, [])).rejects.toThrow(/none\/x\.tfr: ENOENT/);
  });

  it('leave the old file alone when the records fail half way', async () => {
    await writeRecords(path, [noise(5, 19)]);
    const before = await readFile(path);
    async function* failing() {
      yield noise(5, 20);
      throw new Error('the source failed');
    }
    await expect(writeRecords(path, failing())).rejects.toThrow('the source failed');
    expect(await readFile(path)).toEqual(before);
    expect(await readdir(folder)).toEqual(['records.tfr']);
  });
});
