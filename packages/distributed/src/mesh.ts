import { availableParallelism } from 'node:os';
import type { DeviceInfo } from '@cohesin/core';
import { chooseDevices, type DeviceChoice, deviceCount } from './devices/choose.ts';
import { installLayer, withDevice } from './devices/layer.ts';
import { type PhysicalDevice, physicalDevices } from './devices/vulkan.ts';
import { differenceOf, type Level, levelOf } from './level.ts';
import { Rank } from './rank.ts';
import { abort, type RendezvousMemory, rendezvousMemory } from './rendezvous.ts';

export interface MeshOptions {
  /**
   * How many devices, or which, one rank (thread) each: by place, PCI address, UUID or a part of the name. A number is of
   * devices that are alike; those named may be of any kinds, at level L2.
   */
  readonly devices: DeviceChoice;
  /** Let several ranks use one GPU; software drivers are always shared. */
  readonly shareDevices?: boolean;
  /** Longest wait for another rank, in ms. */
  readonly deadlineMs?: number;
}

/** Devices that work together, one thread each. */
export interface Mesh {
  readonly ranks: readonly Rank[];
  /** What the device of rank 0 says about itself; at level L0 all say the same. */
  readonly info: DeviceInfo;
  /** What the device of each rank says. */
  readonly infos: readonly DeviceInfo[];
  readonly level: Level;
  /** The device of each rank, where the Vulkan loader tells. */
  readonly devices: readonly PhysicalDevice[];
  readonly rendezvous: RendezvousMemory;
  readonly deadlineMs: number;
  close(): Promise<void>;
}

const DEADLINE_MS = 600_000; // first steps compile kernels, which a software driver may take minutes over

/**
 * Starts ranks one after another: the adapter a thread sees depends on the environment of the process at that moment.
 *
 * @throws when there are fewer GPUs than devices and sharing is not asked for, a rank got another device than its own, or
 * devices that were not named differ in anything that may decide bits.
 */
export async function openMesh({
  devices: choice,
  shareDevices = false,
  deadlineMs = DEADLINE_MS,
}: MeshOptions): Promise<Mesh> {
  const count = deviceCount(choice);
  if (!Number.isInteger(count) || count < 1)
    throw new Error(`devices is ${count}; it must be a whole number of at least 1`);
  const devices = devicesOf(choice, shareDevices);
  const isChosen = typeof choice !== 'number' || new Set(devices).size > 1;
  if (isChosen) installLayer();
  const ranks: Rank[] = [];
  const threads = process.env.LP_NUM_THREADS;
  // llvmpipe reads this when a device opens: its worker threads share the cores with the other ranks'
  process.env.LP_NUM_THREADS ??= String(Math.max(1, Math.floor(availableParallelism() / count)));
  try {
    const infos: DeviceInfo[] = [];
    for (let index = 0; index < count; index++) {
      const rank = new Rank(index);
      ranks.push(rank);
      const open = (): Promise<DeviceInfo> => rank.call((api) => api.open());
      const { place, uuid } = devices[index] ?? {};
      infos.push(await (isChosen ? withDevice(place!, uuid!, open) : open()));
      if (devices.length === 0) checkSharing(infos, count, shareDevices);
    }
    if (typeof choice === 'number') checkAlike(infos, devices);
    return mesh(ranks, infos, devices, deadlineMs);
  } catch (error) {
    await Promise.allSettled(ranks.map((rank) => rank.close()));
    throw error;
  } finally {
    if (threads === undefined) delete process.env.LP_NUM_THREADS;
  }
}

/** The first rank of a mesh, on its device, without the others; to be closed with them. */
export function firstOf({ ranks, infos, devices, deadlineMs }: Mesh): Mesh {
  const first = mesh(ranks.slice(0, 1), infos.slice(0, 1), devices.slice(0, 1), deadlineMs);
  return { ...first, close: async () => undefined };
}

/** None where there is no Vulkan to ask: on macOS and Windows. */
function devicesOf(choice: DeviceChoice, shareDevices: boolean): PhysicalDevice[] {
  if (process.platform !== 'linux') {
    if (typeof choice === 'number') return [];
    throw new Error(`devices can be named on Linux only; ask for a number of them`);
  }
  return chooseDevices(physicalDevices(), choice, shareDevices);
}

function mesh(
  ranks: readonly Rank[],
  infos: readonly DeviceInfo[],
  devices: readonly PhysicalDevice[],
  deadlineMs: number,
): Mesh {
  const rendezvous = rendezvousMemory(ranks.length);
  return {
    ranks,
    info: infos[0]!,
    infos,
    level: levelOf(infos),
    devices,
    rendezvous,
    deadlineMs,
    close: async () => {
      abort(rendezvous);
      await Promise.allSettled(ranks.map((rank) => rank.close()));
    },
  };
}

/** Without Vulkan every rank gets the adapter that Dawn ranks first: two ranks on hardware would silently share it. */
function checkSharing(infos: readonly DeviceInfo[], devices: number, shareDevices: boolean): void {
  const { software, description } = infos[0]!;
  if (devices === 1 || software || shareDevices) return;
  throw new Error(
    `${devices} devices were asked for but the ranks would share one adapter (${description}); pass --share-devices to allow that, or ask for 1`,
  );
}

/** Who asks for a number of devices is promised the bits of one: a mix has to be asked for. */
function checkAlike(infos: readonly DeviceInfo[], devices: readonly PhysicalDevice[]): void {
  const difference = differenceOf(infos);
  if (difference === undefined) return;
  const places = devices.map(({ place }) => place).join();
  throw new Error(
    `${difference}; their bits would differ. Name devices that are alike, or these (--devices ${places}), to train on them at level L2: within float32 rounding of one device`,
  );
}
