/** Checks one fixture, whatever it holds. */
import { basename } from 'node:path';
import { type Device, globPattern, readSafetensors, type Safetensors } from '@cohesin/core';
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
  /** Cases of ops or parts of a model (`inference/1`, `training/1`, `adam/2`) to run, `*` for any characters. */
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
  const pattern = globPattern(only);
  const limits = { ...GATES, ...gates };
  const options = { file, gates: limits, wanted: (name: string) => pattern.test(name) };
  const isModel = fixture.metadata.config !== undefined && fixture.tensors.has('eval_loss');
  if (fixture.metadata.cases !== undefined) return orNothing(await checkOps(fixture, device, options), only);
  if (isModel) return orNothing(await checkModel(fixture, device, options), only);
  const kind = fixture.metadata.description ?? 'a file without cases and without a model';
  const lists = { measurements: [], supported: [], notSupported: [kind], notChecked: [] };
  return { file, format: 'model', ...lists, dispatches: 0 };
}

/** A choice that matches nothing must not look like a pass. */
function orNothing(report: FixtureReport, only: string): FixtureReport {
  if (report.supported.length + report.notSupported.length > 0) return report;
  return { ...report, notSupported: [`nothing is called '${only}'`] };
}
