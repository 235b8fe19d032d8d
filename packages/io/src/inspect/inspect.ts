/** Says what a file or a folder is and whether it is sound. */
import { open, stat } from 'node:fs/promises';
import { explain } from '@cohesin/core';
import { isCooler } from '../contacts/cooler.ts';
import { sniff } from '../sniff.ts';
import { inspectBed } from './bed.ts';
import { inspectContacts } from './contacts.ts';
import { inspectDataset } from './dataset.ts';
import { inspectGenome } from './genome.ts';
import { type Inspection, Notes } from './inspection.ts';
import { inspectRecords } from './records.ts';
import { inspectBigWig } from './track.ts';
import { inspectWeights } from './weights.ts';

export interface InspectOptions {
  /** Looks at the beginning only: the first file of each split, the first chromosome. */
  readonly quick?: boolean;
}

type Inspector = (path: string, notes: Notes, options: InspectOptions) => Promise<void>;

/**
 * What is at `path`: a data set's folder, TFRecords, a genome, a bigWig, BED, a contact map or weights, told by content. Reads all of
 * it, so damage anywhere is found; damage is in `problems`, not thrown.
 *
 * @throws when there is nothing, or nothing of a known kind
 */
export async function inspect(path: string, options: InspectOptions = {}): Promise<Inspection> {
  const notes = new Notes(path);
  const inspector = await choose(path);
  await inspector(path, notes, options).catch((error) => notes.problem(error));
  return notes;
}

const HIC = 0x48494300;
const ZIP = 0x504b0304;
const HDF5 = 0x89484446;
const TWO_BIT = [0x1a412743, 0x4327411a];
const BIG_WIG = [0x888ffc26, 0x26fc8f88, 0xebf28987, 0x8789f2eb]; // bigWig and bigBed, both byte orders

async function choose(path: string): Promise<Inspector> {
  const found = await stat(path).catch((cause: unknown) => {
    throw explain(path, cause);
  });
  if (found.isDirectory()) return inspectDataset;
  const start = await beginning(path);
  if (start.length === 0) throw new Error(`${path}: a file of 0 bytes; write or download it again`);
  const magic = start.length >= 4 ? start.readUInt32BE(0) : 0;
  if (magic === HIC) return inspectContacts;
  if (BIG_WIG.includes(magic)) return inspectBigWig;
  if (TWO_BIT.includes(magic) || start[0] === 0x3e) return inspectGenome;
  if (magic === HDF5) return (await isCooler(path)) ? inspectContacts : inspectWeights;
  if (magic === ZIP || start[8] === 0x7b) return inspectWeights;
  const looks = sniff(start);
  const bgzf = looks === 'gzip' && start[3] === 4 && start[12] === 0x42;
  if (bgzf && /\.(fa|fasta|fna)\.gz$/i.test(path)) return inspectGenome;
  if (/\.(tfr|tfrecords?)$/i.test(path)) return inspectRecords;
  if (/\.(bed|bedgraph|bg|narrowPeak|broadPeak|bedpe)(\.gz)?$/i.test(path)) return inspectBed;
  if (looks !== 'unknown' && looks !== 'text') return inspectRecords;
  throw new Error(
    `${path}: of no known kind; it begins with ${looks === 'text' ? JSON.stringify(start.toString('utf8', 0, 30)) : start.toString('hex', 0, 8)}. Known are TFRecord data sets and files, FASTA, 2bit, bigWig, BED, contact maps (cooler, .hic), and weights (safetensors, Keras, PyTorch, TensorFlow)`,
  );
}

async function beginning(path: string): Promise<Buffer> {
  const handle = await open(path, 'r').catch((cause: unknown) => {
    throw explain(path, cause);
  });
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(64), 0, 64, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}
