import type { PhysicalDevice } from './vulkan.ts';

/** A number of devices, or which: each by its place, PCI address, UUID or a part of its name. */
export type DeviceChoice = number | readonly string[];

export function deviceCount(choice: DeviceChoice): number {
  return typeof choice === 'number' ? choice : choice.length;
}

/**
 * The device of each rank. Of a number, GPUs come before software drivers and each is taken once; ranks that outnumber them
 * share, if they may: on software drivers always.
 *
 * @throws when there are too few GPUs, or what is asked for is not there, fits several, or is taken twice.
 */
export function chooseDevices(
  all: readonly PhysicalDevice[],
  choice: DeviceChoice,
  shareDevices: boolean,
): PhysicalDevice[] {
  if (typeof choice !== 'number') return named(all, choice, shareDevices);
  if (all.length === 0) return [];
  const gpus = all.filter(({ software }) => !software);
  if (gpus.length === 0) return Array.from({ length: choice }, () => all[0]!);
  if (gpus.length < choice && !shareDevices)
    throw new Error(
      `${choice} devices were asked for but this machine has ${gpus.length}: ${list(gpus)}. Ask for ${gpus.length}, or pass --share-devices to let ranks share a GPU`,
    );
  return Array.from({ length: choice }, (_, rank) => gpus[rank % gpus.length]!);
}

function named(all: readonly PhysicalDevice[], names: readonly string[], share: boolean): PhysicalDevice[] {
  const chosen = names.map((name) => find(all, name));
  const twice = chosen.find((device, i) => chosen.indexOf(device) < i && !device.software);
  if (twice !== undefined && !share)
    throw new Error(
      `two ranks would share ${label(twice)}; name another device, or pass --share-devices to allow that`,
    );
  return chosen;
}

function find(all: readonly PhysicalDevice[], name: string): PhysicalDevice {
  const wanted = name.trim().toLowerCase();
  const uuid = wanted.replace(/^gpu-/, '').replaceAll('-', '');
  const exact = all.filter(
    (device) => `${device.place}` === wanted || device.pci === wanted || device.uuid === uuid,
  );
  const found = exact.length > 0 ? exact : all.filter((device) => device.name.toLowerCase().includes(wanted));
  if (found.length === 1) return found[0]!;
  throw new Error(
    found.length === 0
      ? `no device is ${JSON.stringify(name)}; there are ${list(all)}`
      : `${JSON.stringify(name)} fits ${list(found)}; name one by its place, PCI address or UUID`,
  );
}

/** Devices that are alike as far as their drivers tell: those of one list train together at level L0. */
export function alike(devices: readonly PhysicalDevice[]): PhysicalDevice[][] {
  const lists = new Map<string, PhysicalDevice[]>();
  for (const one of devices) {
    const kind = JSON.stringify([one.name, one.vendor, one.device, one.driver]);
    lists.set(kind, [...(lists.get(kind) ?? []), one]);
  }
  return [...lists.values()];
}

/** A device as a person knows it. */
export function label({ place, name, pci }: PhysicalDevice): string {
  return `${place}: ${name}${pci === undefined ? '' : ` (${pci})`}`;
}

function list(devices: readonly PhysicalDevice[]): string {
  return devices.length === 0 ? 'none' : devices.map(label).join(', ');
}
