import { writeFile } from 'node:fs/promises';
import { type Costs, measureCosts } from '@cohesin/distributed';
import { modelPlan } from '@cohesin/models';
import type { Command } from '../command-line.ts';
import { DEVICE_OPTIONS, deviceChoice } from '../device-options.ts';
import { openOutput } from '../progress.ts';
import { usage } from '../task.ts';
import { leavesOption } from './plan.ts';

export const measure: Command = {
  name: 'measure',
  about: 'measure what a model costs on a device, and a link from it to another, for plan --costs',
  examples: [
    'cohesin measure --model enformer --devices 0,1 --out costs.json',
    'cohesin measure --model params.json --leaves 1,4 --devices 2 --share-devices --out costs.json',
  ],
  options: {
    out: { value: 'FILE.json', about: 'where to write it' },
    model: { value: 'NAME|FILE.json', about: 'as for plan' },
    leaves: { value: 'LIST', about: "leaves of a sequence to measure, as 1,8 (default: the model's own)" },
    runs: { value: 'N', about: 'measured runs of each, of which the median counts (default 9)' },
    ...DEVICE_OPTIONS,
    json: { about: 'one JSON object instead of text' },
  },
  run: async (options) => {
    const output = openOutput(options.flag('json'));
    const out = options.required('out');
    const model = await usage(() => modelPlan(options.required('model')));
    const devices = options.text('devices') === undefined ? 2 : deviceChoice(options);
    const inputs = model.inputs(1);
    const cuts = (leavesOption(options) ?? model.leaves).map((leavesPerSequence) => ({
      inputs,
      leavesPerSequence,
    }));
    output.say(
      `Measuring a sequence of ${model.title}, cut into ${cuts.map((cut) => cut.leavesPerSequence).join(', ')} …`,
    );
    const step = model.step({ group: 'sequence', sequences: 1 });
    const costs = await measureCosts(step, cuts, {
      devices,
      shareDevices: options.flag('share-devices'),
      runs: options.count('runs') ?? 9,
    });
    await writeFile(out, `${JSON.stringify(costs, null, 2)}\n`);
    output.event({ kind: 'costs', ...costs });
    output.say(summary(costs));
    output.say(`Wrote ${out}; use it as cohesin plan --costs ${out}`);
  },
};

function summary({ name, device, link, sum, kernels = {} }: Costs): string {
  return [
    `${name}; ${Object.keys(kernels).length} kernels measured, together ${Object.values(kernels)
      .reduce((a, b) => a + b, 0)
      .toFixed(1)} ms`,
    `products ${device.gigaMultiplyAdds.toFixed(1)} billion multiply-adds a second, other kernels ${device.gigabytes.toFixed(1)} GB/s, memory ${device.memoryGb.toFixed(1)} GB`,
    `link ${link.latencyMs.toFixed(2)} ms and ${link.gigabytes.toFixed(1)} GB/s, gradient sums ${sum.gigabytes.toFixed(1)} GB/s`,
  ].join('\n');
}
