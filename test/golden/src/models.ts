/**
 * Compares fixtures with this library on the device of this machine:
 * `npm run golden -- [--only GLOB] [--binding-limit BYTES] FILE.safetensors…`,
 * the glob over cases of ops or parts of a model (`inference/1`, `training/1`, `adam/2`). Exits 1 when a value misses its gate or a case has no code.
 * A binding limit makes tensors above it run in windows, as on a device that binds no more at once.
 */
import { parseArgs } from 'node:util';
import { Device } from '@cohesin/core';
import { checkFixture, missCount, reportText, summaryLine } from './check.ts';

async function main(args: readonly string[]): Promise<void> {
  const { values, positionals } = parseArgs({
    args: [...args],
    options: { only: { type: 'string', default: '*' }, 'binding-limit': { type: 'string' } },
    allowPositionals: true,
  });
  if (positionals.length === 0)
    throw new Error('usage: npm run golden -- [--only GLOB] [--binding-limit BYTES] FILE.safetensors…');
  const bindingLimit = values['binding-limit'];
  await using device = await Device.open(
    bindingLimit === undefined ? {} : { bindingLimit: Number(bindingLimit) },
  );
  const { vendor, architecture, description } = device.info;
  console.log(
    `adapter: ${[vendor, architecture].filter((word) => word !== '').join(' ')}; driver: ${description}`,
  );
  const lines: string[] = [];
  for (const path of positionals) {
    const report = await checkFixture(path, device, { only: values.only });
    console.log(reportText(report));
    if (bindingLimit !== undefined)
      console.log(`  ${device.windowDispatches} dispatches in windows of at most ${bindingLimit} bytes`);
    lines.push(summaryLine(report));
    if (missCount(report) > 0) process.exitCode = 1;
  }
  if (lines.length > 1) console.log(lines.join('\n'));
}

await main(process.argv.slice(2)).catch((error: Error) => {
  console.error(error.message);
  process.exitCode = 1;
});
