/** Weight files of any known format, told apart by their content. */
import { type HostTensor, readSafetensors, writeSafetensors } from '@cohesin/core';
import { readKeras, writeKeras } from './keras.ts';
import { type Source, withSource } from './source.ts';
import { isCheckpointIndex, readCheckpoint, writeCheckpoint } from './tensorflow.ts';
import { readTorch } from './torch.ts';
import { writeTorch } from './torch-writer.ts';

/** `keras`: HDF5; `torch`: zip; `tensorflow`: a checkpoint's `.index` with its `.data-*` files. */
export type WeightFormat = 'safetensors' | 'keras' | 'torch' | 'tensorflow';

/** The tensors of a file under the names and in the order and layout of the file. */
export interface WeightFile {
  readonly format: WeightFormat;
  readonly tensors: Map<string, HostTensor>;
}

/**
 * All weights of a safetensors, Keras HDF5 or PyTorch file, or of a TensorFlow checkpoint (the path of its `.index`).
 * The format is read off the content; the name of the file plays no part. bfloat16 comes as f32.
 *
 * @throws when the file cannot be read, has another format, or is damaged; the message gives file, tensor, expected and
 *   found, and nothing is returned by halves
 */
export async function readWeights(path: string): Promise<WeightFile> {
  return withSource(path, async (source) => {
    const format = await recognise(source);
    return { format, tensors: await READERS[format](source) };
  });
}

/**
 * Writes weights aside and renames them to `path` (`tensorflow`: the path of the `.index`), so that a reader sees the
 * old file or the whole new one.
 *
 * @throws when the format cannot hold a dtype or a name, or the file cannot be written
 */
export async function writeWeights(path: string, { format, tensors }: WeightFile): Promise<void> {
  await WRITERS[format](path, tensors);
}

const READERS: Readonly<Record<WeightFormat, (source: Source) => Promise<Map<string, HostTensor>>>> = {
  safetensors: async ({ path }) => (await readSafetensors(path)).tensors,
  keras: readKeras,
  torch: readTorch,
  tensorflow: readCheckpoint,
};

type Writer = (path: string, tensors: ReadonlyMap<string, HostTensor>) => Promise<void>;

const WRITERS: Readonly<Record<WeightFormat, Writer>> = {
  safetensors: (path, tensors) => writeSafetensors(path, tensors),
  keras: writeKeras,
  torch: writeTorch,
  tensorflow: writeCheckpoint,
};

const HDF5 = [0x89, 0x48, 0x44, 0x46, 0x0d, 0x0a, 0x1a, 0x0a]; // "\x89HDF\r\n\x1a\n"
const ZIP = [0x50, 0x4b, 0x03, 0x04]; // "PK\x03\x04"
const LEGACY_TORCH = [0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9]; // pickle of 0x1950a86a20f9469cfc6c
const PICKLE = 0x80;
const JSON_START = 0x7b; // "{"

async function recognise(source: Source): Promise<WeightFormat> {
  const { path, size } = source;
  const start = await source.read(0, Math.min(16, size), 'the first bytes');
  const begins = (magic: readonly number[]): boolean => magic.every((byte, i) => start[i] === byte);
  if (begins(HDF5)) return 'keras';
  if (begins(ZIP)) return 'torch';
  if (start[8] === JSON_START) return 'safetensors';
  if (await isCheckpointIndex(source)) return 'tensorflow';
  throw new Error(
    `${path}: ${otherwise(path, start, begins)}; weights are read from safetensors, Keras HDF5 (.h5), PyTorch (.pt) and TensorFlow checkpoints (.index)`,
  );
}

function otherwise(path: string, start: Uint8Array, begins: (magic: readonly number[]) => boolean): string {
  if (begins(LEGACY_TORCH))
    return "a PyTorch file of before 1.6; load it with torch.load and write it again with torch.save(state_dict, 'x.pt')";
  if (start[0] === PICKLE)
    return "a bare Python pickle, which is not read; write torch.save(model.state_dict(), 'x.pt')";
  if (/\.data-\d{5}-of-\d{5}$/.test(path))
    return 'the values of a TensorFlow checkpoint; give the path of its .index file';
  if (start.length === 0) return 'a file of 0 bytes; write or download it again';
  const hex = Array.from(start, (byte) => byte.toString(16).padStart(2, '0')).join(' ');
  return `a file of no known format, it begins with ${hex}`;
}
