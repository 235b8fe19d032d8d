/** Losses in mixed precision beside those in f32, for every model of the fixtures, with a band that follows from f32 alone. */
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Device, type KernelTarget, readSafetensors } from '@cohesin/core';
import { compareMixed, type MixedRun } from '../../test/golden/dist/mixed.js';
import { setupOf } from '../../test/golden/dist/model.js';
import { type CurveGroup, curvesSvg } from './curves.ts';
import { environment, publish, ROOT, table } from './report.ts';

const STEPS = 30;
/** With the kernels of subgroup matrices, which software drivers compile and run slowly. */
const ON_MATRICES = ['basset', 'bpnet_lite', 'basenji2'];
const FIXTURES = join(ROOT, 'test/fixtures/models');
const COLOURS = '#0a6cbd #d95f02 #1b9e77 #7570b3 #e7298a #66a61e #a6761d #444444 #c51b7d #35978f'.split(' ');

/** On a device that lists subgroup matrices their kernels run, otherwise those that suit the device. */
export async function mixed(): Promise<void> {
  await using device = await Device.open();
  const [matrices] = device.info.subgroupMatrices;
  const name = matrices === undefined ? 'mixed' : 'mixed-matrices';
  const target: KernelTarget | undefined = matrices && { kind: 'tensor-core', matrices };
  const runs = new Map<string, MixedRun>();
  for (const file of readdirSync(FIXTURES)) {
    const model = file.replace('_public.safetensors', '');
    if (matrices !== undefined && !ON_MATRICES.includes(model)) continue;
    console.log(`${model}: ${STEPS} steps`);
    const fixture = await readSafetensors(join(FIXTURES, file));
    const setup = setupOf(fixture, device);
    runs.set(model, await compareMixed(fixture, setup, { steps: STEPS, ...(target && { target }) }));
  }
  writeFileSync(join(ROOT, `benchmarks/results/${name}.svg`), picture(runs));
  const kernels =
    matrices === undefined ? '' : ` on subgroup matrices of ${matrices.m} × ${matrices.n} × ${matrices.k}`;
  publish({
    name,
    title: `Mixed precision beside f32${kernels}`,
    environment: environment(device.info),
    text: report(runs, name),
    data: Object.fromEntries(runs),
  });
}

/** Shares of the band, by step. */
const shares = ({ f32, mixed, bands }: MixedRun): readonly number[] =>
  mixed.map((loss, step) => Math.abs(loss - f32[step]!) / bands[step]!);

/** How far the curve of a run that loses its first step would be away, in bands: the most over the steps. */
const lostStep = ({ f32, bands }: MixedRun): number =>
  Math.max(...f32.slice(1).map((loss, before) => Math.abs(f32[before]! - loss) / bands[before + 1]!));

function picture(runs: ReadonlyMap<string, MixedRun>): string {
  const lines = [...runs].map(
    ([name, run], i): CurveGroup => ({
      name,
      colour: COLOURS[i % COLOURS.length]!,
      runs: [shares(run).map((share, step) => [step, share] as const)],
    }),
  );
  return curvesSvg({
    title: 'Distance between the losses of mixed precision and f32; 1 is the band',
    x: 'step',
    y: '|mixed − f32| / band',
    lines,
  });
}

function report(runs: ReadonlyMap<string, MixedRun>, name: string): string {
  const rows = [...runs].map(([model, run]) => {
    const { optimizer, f32, mixed, bands, roundings, scales, still, vanished } = run;
    const apart = mixed.map((loss, step) => Math.abs(loss / f32[step]! - 1));
    return [
      model,
      optimizer,
      `${roundings.forward} + ${roundings.backward}`,
      `${f32[0]!.toPrecision(5)} → ${f32.at(-1)!.toPrecision(5)}`,
      mixed.at(-1)!.toPrecision(5),
      percent(Math.max(...apart)),
      percent(Math.max(...bands.map((band, step) => band / Math.abs(f32[step]!)))),
      Math.max(...shares(run)).toFixed(2),
      lostStep(run).toFixed(1),
      `${Math.max(...scales)} → ${scales.at(-1)}`,
      `${still.filter((paths) => paths.length > 0).length}`,
      percent(vanished),
    ];
  });
  const head = [
    'fixture',
    'optimizer',
    'f16 tensors, forward + backward',
    'loss in f32',
    'last in mixed',
    'furthest apart',
    'band, at its widest',
    'most of the band used',
    'a lost step, in bands',
    'loss scale',
    'steps without an update',
    'gradients that became 0',
  ];
  return [
    `\`npm run bench -- --only mixed\`. Models of \`test/fixtures/models\`, ${STEPS} steps on its batch from its weights, optimizer as in the file, dropout off, once with \`precision: 'f32'\` and once with \`'mixed'\`.`,
    'The band comes of f32 runs only. How much one rounding to f16 is to a model is measured by four f32 runs whose weights begin off by up to 2⁻¹¹ of themselves, and each tensor as a whole by as much: the root mean square of how far their losses go away, the most so far. A step stores n tensors as f16, and n independent roundings add up to √n of one (Higham & Mary 2019, [doi:10.1137/18M1226312](https://doi.org/10.1137/18M1226312)), so the band is √n times that. It differs by model because models differ in how they magnify: in Akita and Enformer f32 itself goes 2–3 % away after such a nudge, in Borzoi 0.001 %.',
    table(head, rows),
    `The loss scale starts at 65,536 and is halved, and the step taken again, until every gradient is finite. "A lost step": how far the f32 curve is from itself one step later, at most; above 1 the band would show a step that was skipped. "Steps without an update": those in which a tensor moves in f32 and stays in mixed precision. "Gradients that became 0": weights that the first step moves in f32 and not in mixed precision.`,
    `![share of the band by step](${name}.svg)`,
  ].join('\n\n');
}

const percent = (share: number): string => `${(100 * share).toPrecision(2)} %`;
