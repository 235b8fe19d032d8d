/** Checks one fixture, whatever it holds. */
import { basename } from 'node:path';
import { type Device, readSafetensors, type Safetensors } from '@cohesin/core';
import { GATES, type Gates } from './gates.ts';
import { checkModel } from './model.ts';
import { checkOps } from './ops.ts';
import type { FixtureReport } from './report.ts';

export { GATES, type Gates } from './gates.ts';
export {
  type FixtureReport,
  type Measurement,
  missCount,
  misses,
  reportText,
  summaryLine,
} from './report.ts';

export interface CheckOptions {
  /** Cases of an ops fixture to run, `*` for any characters; all by default. */
  readonly only?: string;
  readonly gates?: Partial<Gates>;
}

/**
 * Runs what a fixture describes on a device and compares every quantity with its gate.
 *
 * @throws when the file cannot be read or the model in it cannot be built.
 */
export async function checkFixture(
  path: string,
  device: Device,
  options: CheckOptions = {},
): Promise<FixtureReport> {
  return checkTensors(basename(path), await readSafetensors(path), device, options);
}

/** `checkFixture` of a fixture in memory. */
export async function checkTensors(
  file: string,
  fixture: Safetensors,
  device: Device,
  { only = '*', gates = {} }: CheckOptions = {},
): Promise<FixtureReport> {
  const limits = { ...GATES, ...gates };
  if (fixture.metadata.cases !== undefined) {
    const pattern = globPattern(only);
    return checkOps(fixture, device, { file, gates: limits, wanted: (name) => pattern.test(name) });
  }
  const isModel = fixture.metadata.config !== undefined && fixture.tensors.has('eval_loss');
  if (isModel) return checkModel(fixture, device, { file, gates: limits });
  const kind = fixture.metadata.description ?? 'a file without cases and without a model';
  return {
    file,
    format: 'model',
    measurements: [],
    supported: [],
    notSupported: [kind],
    notChecked: [],
    dispatches: 0,
  };
}

function globPattern(glob: string): RegExp {
  const parts = glob.split('*').map((part) => part.replace(/[.+?^${}()|[\]\\]/g, '\\$&'));
  return new RegExp(`^${parts.join('.*')}$`);
}
