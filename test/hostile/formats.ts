/** Small sound files of every format that is read. */
import { copyFileSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import type { HostTensor } from '@cohesin/core';
import { saveCheckpoint } from '@cohesin/distributed';
import { encodeRecord, frameRecord, writeDataset, writeRecords, writeWeights } from '@cohesin/io';
import { writeBigWig } from '@cohesin/io/testing';
import { toyContacts, writeCooler } from '../toy-cooler.ts';
import { bgzf, fastaText, toyLetters, toyValues } from '../toy-genome.ts';
import { writeHic } from '../toy-hic.ts';

export interface Format {
  readonly name: string;
  /** Which reader of `read.mjs`. */
  readonly reader: string;
  /** The file that is damaged. */
  readonly file: string;
  /** What the reader is given; the file itself by default. */
  readonly open?: string;
  /** A checksum guards all values: damage is found, or the values are as before. */
  readonly guarded: boolean;
  /** Lengths in bytes to which it can be cut and be a sound, shorter file. */
  readonly soundCuts?: readonly number[];
}

const LENGTHS = { chrI: 1500, chrII: 700 };

/** Writes a file, or a folder with it, of each format. */
export async function writeFormats(folder: string): Promise<Format[]> {
  const at = (...parts: string[]): string => join(folder, ...parts);
  return [
    ...(await records(at)),
    ...genomes(at),
    ...(await tables(at)),
    ...(await weights(at)),
    ...(await folders(at)),
  ];
}

type At = (...parts: string[]) => string;

async function records(at: At): Promise<Format[]> {
  const targets = (i: number): Float32Array => Float32Array.from({ length: 24 }, (_, k) => i + k / 8);
  const sequence = (i: number): Uint8Array => Uint8Array.from({ length: 64 }, (_, bp) => (bp * i) % 5);
  const f16 = (i: number): Uint16Array => Uint16Array.from({ length: 24 }, (_, k) => 0x3c00 + 7 * i + k);
  const dialects = {
    codes: (i: number) => encodeRecord({ sequence: sequence(i), targets: { dtype: 'f16', data: f16(i) } }),
    'one-hot': (i: number) =>
      encodeRecord(
        { sequence: sequence(i), targets: { dtype: 'f16', data: f16(i) }, genome: 1 },
        { sequence: 'one-hot' },
      ),
    floats: (i: number) =>
      encodeRecord({ sequence: sequence(i), targets: { dtype: 'f32', data: targets(i) } }),
  } as const;
  const formats: Format[] = [];
  for (const [dialect, make] of Object.entries(dialects)) {
    for (const compression of ['none', 'zlib', 'gzip'] as const) {
      const file = at(`${dialect}-${compression}.tfr`);
      const records = [1, 2, 3, 4, 5].map(make);
      await writeRecords(file, records, { compression });
      let end = 0;
      const soundCuts = compression === 'none' ? records.map((own) => (end += frameRecord(own).length)) : [];
      const name = `TFRecord, ${dialect}, ${compression}`;
      formats.push({ name, reader: 'records', file, guarded: true, soundCuts });
    }
  }
  return formats;
}

function genomes(at: At): Format[] {
  const letters = Object.fromEntries(
    Object.entries(toyLetters(3))
      .slice(0, 2)
      .map(([name, bases]) => [name, bases.slice(0, LENGTHS[name as 'chrI'])]),
  );
  const write = (name: string, bytes: string | Uint8Array): string => {
    writeFileSync(at(name), bytes);
    return at(name);
  };
  const plain = write('plain.fa', fastaText(letters));
  const indexed = write('indexed.fa', fastaText(letters));
  const fai = write('indexed.fa.fai', faiOf(letters));
  const packed = write('packed.fa.gz', bgzf(fastaText(letters)));
  const blocks = write('blocks.fa.gz', bgzf(fastaText(letters)));
  const gzi = write('blocks.fa.gz.gzi', gziOf(bgzf(fastaText(letters))));
  const twoBit = write('toy.2bit', twoBitOf(letters));
  return [
    { name: 'FASTA', reader: 'genome', file: plain, guarded: false },
    { name: 'FASTA in BGZF', reader: 'genome', file: packed, guarded: true },
    { name: '.gzi', reader: 'genome', file: gzi, open: blocks, guarded: true },
    { name: '.fai', reader: 'genome', file: fai, open: indexed, guarded: false },
    { name: '2bit', reader: 'genome', file: twoBit, guarded: false },
  ];
}

function faiOf(letters: Readonly<Record<string, string>>): string {
  let offset = 0;
  return Object.entries(letters)
    .map(([name, bases]) => {
      offset += `>${name} a toy\n`.length;
      const row = [name, bases.length, offset, 61, 62].join('\t');
      offset += bases.length + Math.ceil(bases.length / 61);
      return `${row}\n`;
    })
    .join('');
}

/** Of blocks of 700 bytes, as `bgzf` makes them. */
function gziOf(packed: Buffer): Buffer {
  const places: bigint[] = [];
  for (let at = 0; at < packed.length - 28; at += packed.readUInt16LE(at + 16) + 1) places.push(BigInt(at));
  const index = Buffer.alloc(8 + 16 * (places.length - 1));
  index.writeBigUInt64LE(BigInt(places.length - 1));
  for (const [i, at] of places.slice(1).entries()) {
    index.writeBigUInt64LE(at, 8 + 16 * i);
    index.writeBigUInt64LE(BigInt(700 * (i + 1)), 16 + 16 * i);
  }
  return index;
}

/** As the UCSC format page has it: T, C, A, G in two bits, blocks of N and of lower case apart. */
function twoBitOf(letters: Readonly<Record<string, string>>): Buffer {
  const names = Object.keys(letters);
  const indexBytes = names.reduce((bytes, name) => bytes + 1 + name.length + 4, 16);
  const sequences = names.map((name) => {
    const bases = letters[name]!;
    const packed = Buffer.alloc(Math.ceil(bases.length / 4));
    for (const [i, base] of [...bases.toUpperCase()].entries())
      packed[i >> 2]! |= Math.max(0, 'TCAG'.indexOf(base)) << (6 - 2 * (i & 3));
    return Buffer.concat([u32(bases.length), runs(bases, /N+/g), runs(bases, /[acgt]+/g), u32(0), packed]);
  });
  let offset = indexBytes;
  const index = names.map((name, i) => {
    const entry = Buffer.concat([Buffer.from([name.length]), Buffer.from(name), u32(offset)]);
    offset += sequences[i]!.length;
    return entry;
  });
  return Buffer.concat([u32(0x1a412743), u32(0), u32(names.length), u32(0), ...index, ...sequences]);
}

function runs(bases: string, pattern: RegExp): Buffer {
  const found = [...bases.matchAll(pattern)];
  return Buffer.concat([
    u32(found.length),
    ...found.map(({ index }) => u32(index)),
    ...found.map(([run]) => u32(run.length)),
  ]);
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

async function tables(at: At): Promise<Format[]> {
  writeBigWig(at('toy.bw'), LENGTHS, toyValues(2, LENGTHS).slice(0, 60));
  const fragments = Array.from(
    { length: 60 },
    (_, i) => `chr${i % 2 ? 'I' : 'II'}\t${i * 11}\t${i * 11 + 40}\tx\t1\t${i % 3 ? '+' : '-'}\n`,
  );
  writeFileSync(at('toy.bed'), fragments.join(''));
  writeFileSync(at('toy.bed.gz'), gzipSync(fragments.join('')));
  const contacts = toyContacts(100, LENGTHS, 3);
  await writeCooler(at('toy.cool'), contacts);
  writeHic(at('toy.hic'), contacts);
  return [
    { name: 'bigWig', reader: 'bigWig', file: at('toy.bw'), guarded: false },
    { name: 'BED', reader: 'bed', file: at('toy.bed'), guarded: false },
    { name: 'BED, gzip', reader: 'bed', file: at('toy.bed.gz'), guarded: true },
    { name: 'fragments', reader: 'fragments', file: at('toy.bed'), guarded: false },
    { name: 'cooler', reader: 'contacts', file: at('toy.cool'), guarded: false },
    { name: '.hic', reader: 'contacts', file: at('toy.hic'), guarded: false },
    ...indexed(at),
  ];
}

const INDEXED = fileURLToPath(new URL('../fixtures/io/fragments/fragments.tsv.gz', import.meta.url));

/** Fragments with each kind of index, and each index. */
function indexed(at: At): Format[] {
  const open = (name: string, index: string): string => {
    copyFileSync(INDEXED, at(name));
    copyFileSync(`${INDEXED}${index}`, at(`${name}${index}`));
    return at(name);
  };
  const [tbi, csi] = [open('tbi.tsv.gz', '.tbi'), open('csi.tsv.gz', '.csi')];
  return [
    { name: 'fragments, indexed', reader: 'indexed', file: open('place.tsv.gz', '.tbi'), guarded: true },
    { name: '.tbi', reader: 'indexed', file: `${tbi}.tbi`, open: tbi, guarded: true },
    { name: '.csi', reader: 'indexed', file: `${csi}.csi`, open: csi, guarded: true },
  ];
}

const TENSORS = new Map<string, HostTensor>(
  ['conv/conv/kernel:0', 'conv/conv/bias:0', 'head/head/kernel:0'].map((name, i) => [
    name,
    {
      shape: [2, 3 + i],
      dtype: 'f32',
      data: Float32Array.from({ length: 2 * (3 + i) }, (_, k) => i - k / 3),
    },
  ]),
);

async function weights(at: At): Promise<Format[]> {
  const names = {
    safetensors: 'w.safetensors',
    keras: 'w.h5',
    torch: 'w.pt',
    tensorflow: 'w.index',
  } as const;
  for (const [format, name] of Object.entries(names))
    await writeWeights(at(name), { format: format as keyof typeof names, tensors: TENSORS });
  const values = readdirSync(at()).find((name) => name.startsWith('w.data-'))!;
  return [
    { name: 'safetensors', reader: 'weights', file: at(names.safetensors), guarded: false },
    { name: 'Keras HDF5', reader: 'weights', file: at(names.keras), guarded: false },
    { name: 'PyTorch zip', reader: 'weights', file: at(names.torch), guarded: true },
    { name: 'TensorFlow index', reader: 'weights', file: at(names.tensorflow), guarded: true },
    {
      name: 'TensorFlow values',
      reader: 'weights',
      file: at(values),
      open: at(names.tensorflow),
      guarded: true,
    },
  ];
}

async function folders(at: At): Promise<Format[]> {
  const targets = [
    { identifier: 'a', description: 'A', strandPair: 1 },
    { identifier: 'b', description: 'B', strandPair: 0 },
  ];
  const examples = [0, 1, 2].map((i) => ({
    ...{ split: 'train', chrom: 'chrI', startBp: 0, endBp: 12, sequence: new Uint8Array(16).fill(i) },
    targets: { dtype: 'f32' as const, data: Float32Array.of(i, 1, 2, 3, 4, 5) },
  }));
  const sizes = { sequenceLengthBp: 16, targetLength: 3, poolWidthBp: 4, cropBp: 2 };
  await writeDataset(at('data'), { ...sizes, targets, examples });
  mkdirSync(at('params'));
  writeFileSync(at('params', 'params.json'), JSON.stringify(PARAMS, null, 1));
  const checkpoint = await saveCheckpoint(
    at('run'),
    {
      host: { step: 3, counters: { t: 3 }, q: { w: 12 } },
      seed: 5,
      bitsId: 'abc',
      plan: { batch: 4, leaves: 2, parts: 1, batchNorm: 'step', precision: 'f32' },
      model: { name: 'toy', id: 'def', params: PARAMS },
      position: { epoch: 1, consumed: 8 },
      validations: { unimproved: 0, patience: 3, best: { step: 2, value: 0.5 } },
      device: { description: 'none' } as never,
    },
    TENSORS,
  );
  return [
    {
      name: 'statistics.json',
      reader: 'dataset',
      file: at('data', 'statistics.json'),
      open: at('data'),
      guarded: false,
    },
    {
      name: 'targets.txt',
      reader: 'dataset',
      file: at('data', 'targets.txt'),
      open: at('data'),
      guarded: false,
    },
    {
      name: 'shards.json',
      reader: 'dataset',
      file: at('data', 'shards.json'),
      open: at('data'),
      guarded: false,
    },
    { name: 'params.json', reader: 'params', file: at('params', 'params.json'), guarded: false },
    {
      name: 'checkpoint manifest',
      reader: 'checkpoint',
      file: join(checkpoint, 'manifest.msgpack'),
      open: checkpoint,
      guarded: true,
    },
    {
      name: 'checkpoint state',
      reader: 'checkpoint',
      file: join(checkpoint, 'state.safetensors'),
      open: checkpoint,
      guarded: true,
    },
  ];
}

/** A small Basenji. */
const PARAMS = {
  train: { batch_size: 4, optimizer: 'adam', learning_rate: 0.001, loss: 'poisson' },
  model: {
    seq_length: 256,
    target_length: 16,
    target_crop: 0,
    activation: 'gelu',
    batch_norm: true,
    bn_momentum: 0.9,
    trunk: [
      { name: 'conv_block', filters: 8, kernel_size: 7, pool_size: 4 },
      { name: 'conv_tower', filters_init: 8, filters_mult: 1.5, kernel_size: 3, pool_size: 2, repeat: 2 },
    ],
    head: { name: 'final', units: 2, activation: 'softplus' },
  },
};
