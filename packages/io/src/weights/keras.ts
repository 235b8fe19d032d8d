/** Weights in HDF5 as Keras writes them, through the HDF5 library itself, compiled to WebAssembly. */
import { open } from 'node:fs/promises';
import {
  elementBytes,
  elementCount,
  type HostDType,
  type HostTensor,
  replacePath,
  tensorFromBytes,
} from '@cohesin/core';
import type { Dataset, File, Group, Hdf5 } from 'h5wasm/node';
import { MAX_INFLATION } from '../checked-file.ts';
import type { Source } from './source.ts';

/**
 * The tensors by their paths in the file, `model_weights/conv1d_1/conv1d_1/kernel:0`, in the order that the attributes
 * `layer_names` and `weight_names` state; a file without them gives all of its data sets. State of an optimizer is left out.
 *
 * @throws when the file is damaged, lacks a weight that it names, or holds values that are no numbers
 */
export async function readKeras({ path, size }: Source): Promise<Map<string, HostTensor>> {
  return withFile(path, 'r', (file, { Dataset, Group, hdf5 }) => {
    const tensors = new Map<string, HostTensor>();
    const isGroup = (x: unknown): x is Group => x instanceof Group;
    for (const name of weightPaths(file, isGroup, path)) {
      const found = entityAt(file, name);
      if (!(found instanceof Dataset))
        throw new Error(`${path}: tensor ${name} is named but not in the file; it is damaged`);
      checkStored(found, size, `${path}: tensor ${name}`);
      tensors.set(name, readDataset(found, hdf5, `${path}: tensor ${name}`));
    }
    if (tensors.size === 0) throw new Error(`${path}: the file holds no weights`);
    return tensors;
  });
}

/**
 * Writes tensors as Keras 2 does: a group for each layer, with `layer_names` and `weight_names`. Names are paths as
 * `readKeras` gives them; those that start with `model_weights/` make a file of a whole model's weights.
 *
 * @throws when a name has no layer, a dtype cannot be stored, or the file cannot be written
 */
export async function writeKeras(path: string, tensors: ReadonlyMap<string, HostTensor>): Promise<void> {
  const isModel = [...tensors.keys()].every((name) => name.startsWith(MODEL));
  const layers = layersOf(tensors, isModel ? MODEL : '');
  await replacePath(path, async (aside) => {
    await withFile(aside, 'w', (file) => {
      const root = isModel ? file.create_group('model_weights') : file;
      root.create_attribute('layer_names', [...layers.keys()]);
      root.create_attribute('backend', 'tensorflow');
      root.create_attribute('keras_version', '2.10.0');
      for (const [layer, weights] of layers) {
        const group = root.create_group(layer);
        group.create_attribute(
          'weight_names',
          weights.map(([name]) => name),
        );
        for (const [name, tensor] of weights) writeDataset(group, name, tensor);
      }
      file.flush();
    });
    await synced(aside);
  });
}

const MODEL = 'model_weights/';
const FLOAT = 1; // H5T_FLOAT
const MAX_DEPTH = 16;

/** @throws when a data set says that it holds more than a file of so many bytes can */
export function checkStored({ metadata }: Pick<Dataset, 'metadata'>, fileBytes: number, where: string): void {
  const bytes = metadata.size * metadata.total_size;
  if (bytes <= fileBytes * (metadata.chunks ? MAX_INFLATION : 1)) return;
  throw new Error(`${where}: ${bytes} bytes of values in a file of ${fileBytes}; the file is damaged`);
}

type Library = typeof import('h5wasm/node') & { readonly hdf5: Hdf5 };

let library: Promise<Library> | undefined;

/** Loaded when first needed: it takes 4 MB. */
function hdf5Library(): Promise<Library> {
  library ??= import('h5wasm/node').then(async (module) => {
    const hdf5 = await module.ready;
    hdf5.activate_throwing_error_handler();
    return { ...module, hdf5 };
  });
  return library;
}

/** Opens a file for `body` only. @throws with the first cause that the HDF5 library gives */
export async function withFile<Result>(
  path: string,
  mode: 'r' | 'w',
  body: (file: File, library: Library) => Result,
): Promise<Result> {
  const loaded = await hdf5Library();
  let file: File | undefined;
  try {
    file = new loaded.File(path, mode, { libver: ['earliest', 'latest'] }); // the oldest form of what is written, as h5py does
    return body(file, loaded);
  } catch (cause) {
    throw explained(cause, path);
  } finally {
    file?.close();
  }
}

/** An error of the HDF5 library by its first cause, which it prints last: `#006: H5Fsuper.c line 388 in …: file signature not found`. */
function explained(cause: unknown, path: string): unknown {
  const trace = cause instanceof Error ? cause.message.matchAll(/#\d+: .*?\(\): (.*)/g) : [];
  const reason = [...trace].at(-1)?.[1];
  if (reason === undefined) return cause;
  return new Error(`${path}: HDF5: ${reason}; the file is damaged or cut short, download or write it again`, {
    cause,
  });
}

/** What stands at a path, if anything. */
export function entityAt(group: Group, path: string): unknown {
  let at: unknown = group;
  for (const name of path.split('/')) {
    const isThere =
      typeof at === 'object' && at !== null && 'keys' in at && (at as Group).keys().includes(name);
    if (!isThere) return undefined;
    at = (at as Group).get(name);
  }
  return at;
}

function weightPaths(file: Group, isGroup: (x: unknown) => x is Group, path: string): string[] {
  const model = file.keys().includes('model_weights') ? file.get('model_weights') : file;
  if (!isGroup(model)) throw new Error(`${path}: model_weights should be a group; the file is damaged`);
  const prefix = model === file ? '' : MODEL;
  const layers = names(model, 'layer_names');
  if (layers === undefined) return datasetPaths(model, isGroup, 0).map((name) => prefix + name);
  return layers.flatMap((layer) => {
    const group = entityAt(model, layer);
    if (!isGroup(group))
      throw new Error(`${path}: layer ${layer} is named but not in the file; it is damaged`);
    return (names(group, 'weight_names') ?? []).map((name) => `${prefix}${layer}/${name}`);
  });
}

/** An attribute of names. Keras splits one above 64 KB into `layer_names0`, `layer_names1`, … */
function names({ attrs }: Group, attribute: string): string[] | undefined {
  if (attribute in attrs) return texts(attrs[attribute]!.value);
  if (!(`${attribute}0` in attrs)) return undefined;
  const all: string[] = [];
  for (let i = 0; `${attribute}${i}` in attrs; i++) all.push(...texts(attrs[`${attribute}${i}`]!.value));
  return all;
}

/** Text values; an attribute without any comes as numbers or null. */
function texts(value: unknown): string[] {
  const list: unknown[] = Array.isArray(value) ? value : [value];
  return list.filter((item) => typeof item === 'string');
}

function datasetPaths(group: Group, isGroup: (x: unknown) => x is Group, depth: number): string[] {
  if (depth > MAX_DEPTH) throw new Error(`groups lie more than ${MAX_DEPTH} deep at ${group.path}`);
  return group.keys().flatMap((name) => {
    const inner = group.get(name);
    return isGroup(inner) ? datasetPaths(inner, isGroup, depth + 1).map((path) => `${name}/${path}`) : [name];
  });
}

const FLOATS: Readonly<Record<number, HostDType>> = { 2: 'f16', 4: 'f32', 8: 'f64' };
const DTYPES: Readonly<Record<string, HostDType>> = {
  '<b': 'i8',
  '<B': 'u8',
  '<h': 'i16',
  '<H': 'u16',
  '<i': 'i32',
  '<I': 'u32',
  '<q': 'i64',
  '<Q': 'u64',
};

function readDataset(dataset: Dataset, hdf5: Hdf5, where: string): HostTensor {
  const { metadata } = dataset;
  const shape = metadata.shape ?? [];
  const dtype = metadata.type === FLOAT ? littleFloat(metadata) : DTYPES[dataset.dtype as string];
  if (dtype === undefined)
    throw new Error(`${where}: expected little-endian numbers, found ${JSON.stringify(dataset.dtype)}`);
  if (elementBytes(dtype) !== metadata.size || elementCount(shape) !== metadata.total_size)
    throw new Error(
      `${where}: [${shape.join(', ')}] of ${dtype} but ${metadata.total_size} elements of ${metadata.size} bytes; the file is damaged`,
    );
  return tensorFromBytes(shape, dtype, bytesOf(dataset, metadata.size * metadata.total_size, hdf5));
}

function littleFloat({ littleEndian, size }: Dataset['metadata']): HostDType | undefined {
  return littleEndian ? FLOATS[size] : undefined;
}

/** As `dataset.value`, which refuses f16. */
function bytesOf({ file_id, path }: Dataset, length: number, hdf5: Hdf5): Uint8Array<ArrayBuffer> {
  const pointer = hdf5._malloc(length);
  if (pointer === 0 && length > 0) throw new Error(`no memory for the ${length} bytes of ${path}`);
  try {
    hdf5.get_dataset_data(file_id, path, null, null, null, BigInt(pointer));
    return Uint8Array.from(hdf5.HEAPU8.subarray(pointer, pointer + length));
  } finally {
    hdf5._free(pointer);
  }
}

type Weights = (readonly [name: string, tensor: HostTensor])[];

/** Weights by layer, named from the layer on. */
function layersOf(tensors: ReadonlyMap<string, HostTensor>, prefix: string): Map<string, Weights> {
  const layers = new Map<string, Weights>();
  for (const [path, tensor] of tensors) {
    const name = path.slice(prefix.length);
    const cut = name.indexOf('/');
    if (cut < 1 || name.split('/').includes(''))
      throw new Error(`keras: tensor ${path}: a name is layer/…/weight; it has no layer`);
    const weights = layers.get(name.slice(0, cut)) ?? [];
    layers.set(name.slice(0, cut), [...weights, [name.slice(cut + 1), tensor]]);
  }
  return layers;
}

const CODES: Partial<Readonly<Record<HostDType, string>>> = {
  f32: '<f',
  f64: '<d',
  ...Object.fromEntries(Object.entries(DTYPES).map(([code, dtype]) => [dtype, code])),
};

function writeDataset(layer: Group, name: string, { shape, dtype, data }: HostTensor): void {
  const code = CODES[dtype];
  if (code === undefined)
    throw new Error(
      `keras: tensor ${layer.path}/${name}: ${dtype} cannot be written to HDF5 here; convert it to f32`,
    );
  const path = name.split('/');
  const group = path
    .slice(0, -1)
    .reduce<Group>(
      (outer, part) => (outer.keys().includes(part) ? (outer.get(part) as Group) : outer.create_group(part)),
      layer,
    );
  group.create_dataset({ name: path.at(-1)!, data, shape, dtype: code });
}

async function synced(path: string): Promise<void> {
  const handle = await open(path, 'r+');
  await handle.sync().finally(() => handle.close());
}
