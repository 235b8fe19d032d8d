/**
 * Reads damaged files, one message each, and answers with what came of it: a hash of everything read, or the error. Notes any
 * buffer larger than LIMIT that is asked for. A process of its own, so that its end or its silence can be seen.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

const LIMIT = 64 * 2 ** 20;
let largest = 0;

for (const name of [
  'ArrayBuffer',
  'SharedArrayBuffer',
  'Uint8Array',
  'Uint16Array',
  'Int32Array',
  'Uint32Array',
  'Float32Array',
  'Float64Array',
  'BigInt64Array',
]) {
  const bytes = globalThis[name].BYTES_PER_ELEMENT ?? 1;
  globalThis[name] = new Proxy(globalThis[name], {
    construct(target, args, newTarget) {
      if (typeof args[0] === 'number') largest = Math.max(largest, args[0] * bytes);
      return Reflect.construct(target, args, newTarget);
    },
  });
}
for (const name of ['alloc', 'allocUnsafe', 'allocUnsafeSlow']) {
  const make = Buffer[name];
  Buffer[name] = (size, ...rest) => {
    largest = Math.max(largest, size);
    return make.call(Buffer, size, ...rest);
  };
}

const { loadCheckpoint } = await import('@cohesin/distributed');
const io = await import('@cohesin/io');
const { modelFromParams } = await import('@cohesin/models');

const READERS = {
  async records(path, add) {
    const set = io.openShards(
      [path],
      { sequenceLengthBp: 64, targetLength: 12, numTargets: 2 },
      { cacheBytes: 0 },
    );
    for await (const { record } of set.stream('train'))
      add(record.sequence, record.targets.data, record.genome);
  },
  async genome(path, add) {
    const genome = await io.openGenome(path);
    await reading(genome, async (chrom, length) => add(chrom, await genome.read(chrom, 0, length)));
  },
  async bigWig(path, add) {
    const track = await io.openBigWig(path);
    add(JSON.stringify(await track.summary([...track.chromosomes.keys()].slice(0, 8))));
    await reading(track, async (chrom, length) => add(chrom, await track.read(chrom, 0, length)));
  },
  async bed(path, add) {
    for await (const row of io.readBed(path)) add(JSON.stringify(row));
  },
  async fragments(path, add) {
    const track = await io.openFragments(
      path,
      new Map([
        ['chrI', 1500],
        ['chrII', 700],
      ]),
    );
    await reading(track, async (chrom, length) => add(chrom, await track.read(chrom, 0, length)));
  },
  async indexed(path, add) {
    const lengths = { chrI: 6000, chrII: 4001, chrIII: 5000 };
    const track = await io.openFragments(path, new Map(Object.entries(lengths)));
    if (track.keepOpen) throw new Error(`${path}: read without its index`);
    await reading(track, async (chrom, length) => add(chrom, await track.read(chrom, 0, length)));
  },
  async contacts(path, add) {
    const map = await io.openContacts(path, { binBp: 100 });
    await reading(map, async (chrom, length) => {
      const end = Math.floor(length / 100) * 100;
      add(
        chrom,
        (await map.read(chrom, 0, end)).balanced,
        (await map.filtered(chrom)).subarray(0, end / 100),
      );
    });
  },
  async weights(path, add) {
    for (const [name, { shape, dtype, data }] of (await io.readWeights(path)).tensors)
      add(name, shape, dtype, data);
  },
  async dataset(path, add) {
    const set = await io.openDataset(path);
    add(JSON.stringify(set), `${await set.count('train')}`);
    for await (const { record } of set.stream('train')) add(record.sequence, record.targets.data);
  },
  async params(path, add) {
    let params;
    try {
      params = JSON.parse(readFileSync(path, 'utf8'));
      add(JSON.stringify(modelFromParams(params).config));
    } catch (error) {
      throw new Error(`${path}: ${error.message}`, { cause: error }); // as the command does
    }
  },
  async checkpoint(path, add) {
    const { state, ...info } = await loadCheckpoint(path);
    add(JSON.stringify(info));
    for (const [name, { shape, dtype, data }] of state) add(name, shape, dtype, data);
  },
};

/** Places of chromosomes that say they are no longer than a toy's; the length of a longer one is all that is read of it. */
async function reading(open, read) {
  try {
    for (const [chrom, length] of open.chromosomes) await read(chrom, Math.min(length, 100_000));
  } finally {
    await open.close?.();
  }
}

process.on('message', async ({ reader, path }) => {
  const hash = createHash('sha256');
  const add = (...values) => {
    for (const value of values)
      hash.update(
        ArrayBuffer.isView(value)
          ? Buffer.from(value.buffer, value.byteOffset, value.byteLength)
          : `${value}\n`,
      );
  };
  largest = 0;
  const before = process.memoryUsage.rss();
  let answer;
  try {
    await READERS[reader](path, add);
    answer = { hash: hash.digest('hex') };
  } catch (error) {
    answer = { error: error instanceof Error ? error.message : String(error), kind: error?.name };
  }
  const grown = process.memoryUsage.rss() - before;
  process.send({ ...answer, largest: Math.max(largest, grown) > LIMIT ? Math.max(largest, grown) : 0 });
});
process.send({ ready: true });
