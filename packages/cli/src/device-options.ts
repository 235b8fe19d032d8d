import { type DeviceChoice, LEVELS, label, type Mesh } from '@cohesin/distributed';
import type { OptionSpec, Options } from './command-line.ts';

/** The options of commands that compute. */
export const DEVICE_OPTIONS: Readonly<Record<'devices' | 'share-devices', OptionSpec>> = {
  devices: {
    value: 'N|LIST',
    about:
      'how many devices, or which, with commas between: by place, PCI address, UUID or name, as `cohesin devices` lists them; of devices that are alike, never changes a bit (default 1)',
  },
  'share-devices': { about: 'let several ranks use one GPU (always allowed on software drivers)' },
};

/** A whole number is how many; everything else names devices. @throws UsageError for a number below 1. */
export function deviceChoice(options: Options): DeviceChoice {
  const given = options.text('devices');
  return given === undefined || /^-?\d*$/.test(given) ? (options.count('devices') ?? 1) : given.split(',');
}

/** What computes: one line, or one for each device where there are several, and what to expect of those that differ. */
export function describeMesh({ infos, ranks, devices, level }: Mesh): string {
  const names = [...new Set(infos.map(({ description }) => description))].join(' and ');
  const several = `${names}: ${ranks.length} ${ranks.length === 1 ? 'device' : 'devices'}`;
  if (new Set(devices).size < 2) return several;
  const each = devices.map((device, rank) => `  rank ${rank} on device ${label(device)}`);
  return [
    several,
    ...each,
    ...(level === 'L0' ? [] : [`these devices are not alike: level ${level}, ${LEVELS[level]}`]),
  ].join('\n');
}
