import { Device, type DeviceInfo } from '@cohesin/core';
import { alike, LEVELS, label, type PhysicalDevice, physicalDevices } from '@cohesin/distributed';
import type { Command } from '../command-line.ts';
import { type Output, openOutput } from '../progress.ts';

export const devices: Command = {
  name: 'devices',
  about: 'say what this machine can compute on',
  examples: ['cohesin devices', 'cohesin devices --json'],
  options: { json: { about: 'one JSON object instead of text' } },
  run: async (options) => {
    const output = openOutput(options.flag('json'));
    await using device = await Device.open();
    const all = process.platform === 'linux' ? physicalDevices() : [];
    output.event({ ...device.info, devices: all });
    for (const one of all) sayPhysical(one, output);
    if (all.length > 1) sayMixes(all, output);
    sayDefault(device.info, output);
  },
};

/** What the driver says of one device. */
function sayPhysical(device: PhysicalDevice, output: Output): void {
  output.say(`${label(device)}${device.software ? ', a software driver on the CPU' : ''}`);
  output.say(`  UUID ${device.uuid}`);
  for (const { bytes, local, budgetBytes } of device.heaps) {
    const free = budgetBytes === undefined ? '' : `, ${gibibytes(budgetBytes)} of it to be had now`;
    output.say(
      `  ${gibibytes(bytes)} of ${local && !device.software ? 'its own memory' : "the host's memory"}${free}`,
    );
  }
}

/** Which devices train together with the bits of one, and which do not. */
function sayMixes(devices: readonly PhysicalDevice[], output: Output): void {
  const places = (of: readonly PhysicalDevice[]): string => of.map(({ place }) => place).join(', ');
  const kinds = alike(devices);
  for (const kind of kinds)
    if (kind.length > 1) output.say(`${places(kind)} are alike: together at level L0, ${LEVELS.L0}`);
  if (kinds.length > 1)
    output.say(`${kinds.map(places).join(' and ')} are not alike: together at level L2, ${LEVELS.L2}`);
}

/** What WebGPU grants on the device that is taken unless others are named. */
function sayDefault(info: DeviceInfo, output: Output): void {
  output.say(`Taken by default: ${info.description}`);
  output.say(`  vendor ${info.vendor}, architecture ${info.architecture}`);
  output.say(
    `  one binding up to ${mebibytes(info.maxBindingBytes)}, one buffer up to ${mebibytes(info.maxBufferBytes)}`,
  );
  output.say(`  subgroups of ${info.subgroupSizes[0]} to ${info.subgroupSizes[1]} lanes`);
  output.say(`  ${info.features.join(', ')}`);
  output.say(
    info.software
      ? 'Any number of ranks may share it: cohesin train --devices 2 …'
      : 'Each rank takes a GPU of its own; --devices 0,1 names them, --share-devices lets ranks share one.',
  );
}

const mebibytes = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`;
const gibibytes = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
