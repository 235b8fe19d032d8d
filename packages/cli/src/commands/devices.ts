import { Device } from '@cohesin/core';
import type { Command } from '../command-line.ts';
import { openOutput } from '../progress.ts';

export const devices: Command = {
  name: 'devices',
  about: 'say what this machine can compute on',
  examples: ['cohesin devices', 'cohesin devices --json'],
  options: { json: { about: 'one JSON object instead of text' } },
  run: async (options) => {
    const output = openOutput(options.flag('json'));
    const device = await Device.open();
    const { info } = device;
    output.event({ ...info });
    output.say(`${info.description}${info.software ? ' (software driver on the CPU)' : ''}`);
    output.say(`  vendor ${info.vendor}, architecture ${info.architecture}`);
    output.say(
      `  one binding up to ${mebibytes(info.maxBindingBytes)}, one buffer up to ${mebibytes(info.maxBufferBytes)}`,
    );
    output.say(`  subgroups of ${info.subgroupSizes[0]} to ${info.subgroupSizes[1]} lanes`);
    output.say(`  ${info.features.join(', ')}`);
    output.say(
      info.software
        ? 'Any number of ranks may share it: cohesin train --devices 2 …'
        : 'Ranks share it only with --share-devices.',
    );
    await device.close();
  },
};

const mebibytes = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`;
