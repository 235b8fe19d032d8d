import { availableParallelism } from 'node:os';
import type { DeviceInfo } from '@cohesin/core';
import { Rank } from './rank.ts';
import { abort, type RendezvousMemory, rendezvousMemory } from './rendezvous.ts';

export interface MeshOptions {
  /** Devices, one rank (thread) each. */
  readonly devices: number;
  /** Let several ranks use one hardware adapter; software adapters are always shared. */
  readonly shareDevices?: boolean;
  /** Longest wait for another rank, in ms. */
  readonly deadlineMs?: number;
}

/** Devices that work together, one thread each. */
export interface Mesh {
  readonly ranks: readonly Rank[];
  readonly info: DeviceInfo;
  readonly rendezvous: RendezvousMemory;
  readonly deadlineMs: number;
  close(): Promise<void>;
}

const DEADLINE_MS = 600_000; // first steps compile kernels, which a software driver may take minutes over

/**
 * Starts ranks one after another: the adapter a thread sees depends on the environment of the process at that moment.
 *
 * @throws when there are fewer adapters than devices and sharing is not asked for, or ranks differ in anything that
 * decides bits.
 */
export async function openMesh({
  devices,
  shareDevices = false,
  deadlineMs = DEADLINE_MS,
}: MeshOptions): Promise<Mesh> {
  if (!Number.isInteger(devices) || devices < 1)
    throw new Error(`devices is ${devices}; it must be a whole number of at least 1`);
  const ranks: Rank[] = [];
  const threads = process.env.LP_NUM_THREADS;
  // llvmpipe reads this when a device opens: its worker threads share the cores with the other ranks'
  process.env.LP_NUM_THREADS ??= String(Math.max(1, Math.floor(availableParallelism() / devices)));
  try {
    const infos: DeviceInfo[] = [];
    for (let index = 0; index < devices; index++) {
      const rank = new Rank(index);
      ranks.push(rank);
      infos.push(await rank.call((api) => api.open()));
      checkSharing(infos, devices, shareDevices);
    }
    checkFingerprints(infos);
    return mesh(ranks, infos[0]!, deadlineMs);
  } catch (error) {
    await Promise.allSettled(ranks.map((rank) => rank.close()));
    throw error;
  } finally {
    if (threads === undefined) delete process.env.LP_NUM_THREADS;
  }
}

function mesh(ranks: readonly Rank[], info: DeviceInfo, deadlineMs: number): Mesh {
  const rendezvous = rendezvousMemory(ranks.length);
  return {
    ranks,
    info,
    rendezvous,
    deadlineMs,
    close: async () => {
      abort(rendezvous);
      await Promise.allSettled(ranks.map((rank) => rank.close()));
    },
  };
}

/** Every rank gets the adapter that Dawn ranks first, so two ranks on hardware would silently share one card. */
function checkSharing(infos: readonly DeviceInfo[], devices: number, shareDevices: boolean): void {
  const { software, description } = infos[0]!;
  if (devices === 1 || software || shareDevices) return;
  throw new Error(
    `${devices} devices were asked for but the ranks would share one adapter (${description}); pass --share-devices to allow that, or ask for 1`,
  );
}

function checkFingerprints(infos: readonly DeviceInfo[]): void {
  const [first, ...others] = infos;
  for (const [i, info] of others.entries()) {
    for (const field of Object.keys(info) as (keyof DeviceInfo)[]) {
      const [a, b] = [JSON.stringify(first![field]), JSON.stringify(info[field])];
      if (a !== b)
        throw new Error(
          `ranks 0 and ${i + 1} differ in ${field}: ${a} and ${b}; all ranks must be alike for equal bits`,
        );
    }
  }
}
