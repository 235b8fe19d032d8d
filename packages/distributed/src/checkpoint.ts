import { createHash, type Hash } from 'node:crypto';
import { access, mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import {
  type DeviceInfo,
  explain,
  type HostTensor,
  type KernelTable,
  readSafetensors,
  replacePath,
  writeSafetensors,
  writeSynced,
} from '@cohesin/core';
import type { Level } from './level.ts';
import { packValue, unpackValue } from './packr.ts';
import type { HostState } from './runner.ts';
import type { DistributedState } from './state.ts';

/** How validation went so far; what ends training is part of its state. */
export interface Validations {
  /** The highest value and the step it was reached at; none before the first. */
  readonly best?: { readonly step: number; readonly value: number };
  /** Validations since then. */
  readonly unimproved: number;
  /** As many of them end the run. */
  readonly patience: number;
}

/** What a checkpoint says about the run besides its tensors. */
export interface CheckpointInfo {
  readonly host: HostState;
  readonly seed: number;
  /** Kernel texts and logical plan: a run resumes with the same bits only if they are the same. */
  readonly bitsId: string;
  readonly plan: {
    readonly batch: number;
    readonly leaves: number;
    /** Parts that each sequence is cut into. */
    readonly parts: number;
    readonly batchNorm: string;
    readonly precision: string;
    /** Patterns of the parameters that keep their values. */
    readonly frozen?: readonly string[];
    /** What learning rates are multiplied by, by pattern of parameters. */
    readonly rateFactors?: Readonly<Record<string, number>>;
    /** The kernel table, where one was named in place of the shipped one. */
    readonly kernelTable?: KernelTable | undefined;
  };
  readonly model: {
    readonly name: string;
    readonly id: string;
    readonly params: unknown;
    /** Heads for each of several genomes. */
    readonly heads?: readonly string[];
  };
  /** Where the data stream goes on. */
  readonly position: unknown;
  readonly validations: Validations;
  readonly device: DeviceInfo;
  /** Of each rank, where they differ. */
  readonly devices?: readonly DeviceInfo[] | undefined;
  /** `L2` if any step so far was on devices that differ; `L0` where it is not stated. */
  readonly level?: Level;
}

export interface Checkpoint extends CheckpointInfo {
  readonly dir: string;
  /** Parameters, running statistics and optimizer moments by name. */
  readonly state: ReadonlyMap<string, HostTensor>;
}

const FORMAT = 'cohesin checkpoint 3';
const MANIFEST = 'manifest.msgpack';
const STATE = 'state.safetensors';
const KEPT = 2;
const BEST = 'best';

/**
 * Writes `runDir/checkpoints/step-N` aside, syncs it and renames it: it exists whole or not at all. The two newest are kept.
 *
 * @throws when the disk is full or not writable; earlier checkpoints stay as they are.
 */
export async function saveCheckpoint(
  runDir: string,
  info: CheckpointInfo,
  state: ReadonlyMap<string, HostTensor>,
): Promise<string> {
  const parent = join(runDir, 'checkpoints');
  const dir = await write(join(parent, `step-${String(info.host.step).padStart(8, '0')}`), info, state);
  for (const old of (await checkpointNames(parent)).slice(0, -KEPT))
    await rm(join(parent, old), { recursive: true, force: true });
  return dir;
}

/**
 * Writes `runDir/best` likewise, in place of the one before. A kill between the two leaves none; the run resumed from its
 * newest checkpoint then comes by the same step and writes it again.
 */
export async function saveBestCheckpoint(
  runDir: string,
  info: CheckpointInfo,
  state: ReadonlyMap<string, HostTensor>,
): Promise<string> {
  return write(join(runDir, BEST), info, state);
}

async function write(
  dir: string,
  info: CheckpointInfo,
  state: ReadonlyMap<string, HostTensor>,
): Promise<string> {
  try {
    await mkdir(dirname(dir), { recursive: true });
    await replacePath(dir, async (aside) => {
      await mkdir(aside);
      await writeSafetensors(join(aside, STATE), state);
      const packed = packValue({ ...info, stateHash: hashState(state) });
      await writeSynced(join(aside, MANIFEST), [
        packValue({ format: FORMAT, sha256: sha256(packed), packed }),
      ]);
      await rm(dir, { recursive: true, force: true });
    });
    return dir;
  } catch (cause) {
    throw explain(dir, cause);
  }
}

/**
 * Loads a checkpoint folder, or the newest one of a run's folder.
 *
 * @throws when there is none, or its parts do not belong together.
 */
export async function loadCheckpoint(path: string): Promise<Checkpoint> {
  const dir = await findCheckpoint(path);
  const manifest = await readManifest(dir);
  const { tensors: state } = await readSafetensors(join(dir, STATE));
  const found = hashState(state);
  if (found !== manifest.stateHash || [...state.values()].some(({ dtype }) => dtype !== 'f32')) {
    throw new Error(
      `${dir}: ${STATE} has hash ${found} but the manifest says ${manifest.stateHash}; the checkpoint is damaged, use an older one`,
    );
  }
  return { ...manifest, dir, state };
}

/** SHA-256 over tensors in name order: name, shape, little-endian bytes. */
export function hashState(state: ReadonlyMap<string, HostTensor>): string {
  const hash = createHash('sha256');
  for (const name of [...state.keys()].sort()) updateHash(hash, name, state.get(name)!);
  return hash.digest('hex');
}

/** `hashState` of what the ranks hold, read tensor by tensor: for models whose state the host should not hold whole. */
export async function hashRanks(state: DistributedState): Promise<string> {
  const hash = createHash('sha256');
  for (const name of state.names) updateHash(hash, name, (await state.read([name])).get(name)!);
  return hash.digest('hex');
}

function updateHash(hash: Hash, name: string, { shape, data }: HostTensor): void {
  hash.update(`${name} [${shape.join(', ')}]\n`);
  hash.update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
}

/** Tensors that stand for the host's part of the state, so that one hash can cover all of it. */
export function hostTensors({ step, counters, q }: HostState): Map<string, HostTensor> {
  const number = (value: number): HostTensor => ({ shape: [], dtype: 'f64', data: Float64Array.of(value) });
  return new Map([
    ['host/step', number(step)],
    ...Object.entries(counters).map(([name, value]) => [`host/counter/${name}`, number(value)] as const),
    ...Object.entries(q).map(([name, value]) => [`host/gradient scale/${name}`, number(value)] as const),
  ]);
}

/** Finished checkpoints, oldest first; a folder that was being written has another name. */
async function checkpointNames(parent: string): Promise<string[]> {
  const names = await readdir(parent).catch(() => []);
  return names.filter((name) => /^step-\d+$/.test(name)).sort();
}

async function findCheckpoint(path: string): Promise<string> {
  return (await checkpointPaths(path)).at(-1)!;
}

/** The checkpoints of a run, oldest first; a checkpoint alone if that is what the path leads to. @throws when there is none. */
export async function checkpointPaths(path: string): Promise<[string, ...string[]]> {
  if (/^step-\d+$/.test(basename(path)) || (await isCheckpoint(path))) return [path];
  const parent = join(path, 'checkpoints');
  const [oldest, ...others] = (await checkpointNames(parent)).map((name) => join(parent, name));
  if (oldest === undefined)
    throw new Error(
      `${path}: no checkpoint found; give a folder that 'cohesin train --out' wrote, its best, or one of its checkpoints/step-N`,
    );
  return [oldest, ...others];
}

function isCheckpoint(path: string): Promise<boolean> {
  return access(join(path, MANIFEST)).then(
    () => true,
    () => false,
  );
}

type Manifest = CheckpointInfo & { readonly stateHash: string };

async function readManifest(dir: string): Promise<Manifest> {
  const path = join(dir, MANIFEST);
  const bytes = await readFile(path).catch((cause: unknown) => {
    throw explain(path, cause);
  });
  const { format, packed, sha256: expected } = unpackObject<Packed>(bytes, path);
  if (format !== FORMAT && typeof format === 'string' && format.startsWith('cohesin checkpoint'))
    throw new Error(
      `${path}: the format is '${format}' but this version reads '${FORMAT}'; resume with the version of cohesin that wrote it`,
    );
  if (!(packed instanceof Uint8Array) || sha256(packed) !== expected)
    throw new Error(`${path}: damaged, its hash is another; use an older checkpoint`);
  return unpackObject<Manifest>(packed, path);
}

type Packed = Readonly<Record<'format' | 'packed' | 'sha256', unknown>>;

function unpackObject<Content extends object>(bytes: Uint8Array, path: string): Content {
  try {
    return Object(unpackValue(bytes)) as Content;
  } catch (cause) {
    throw new Error(`${path}: damaged; use an older checkpoint`, { cause });
  }
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
