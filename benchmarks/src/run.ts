/** `node run.js [--only NAME]`: measures and writes `benchmarks/results`. */
import { parseArgs } from 'node:util';
import { bits } from './bits.ts';
import { bpnet } from './bpnet.ts';
import { cold } from './cold.ts';
import { fullSize } from './full-size.ts';
import { fullStep } from './full-step.ts';
import { input } from './input.ts';
import { large } from './large.ts';
import { memory } from './memory.ts';
import { mixed } from './mixed.ts';
import { kernels, peers } from './peers.ts';
import { plan } from './plan.ts';
import { prepareMemory } from './prepare-memory.ts';
import { roofline } from './roofline.ts';
import { scaling } from './scaling.ts';
import { schedules } from './schedules.ts';
import { stages } from './stages.ts';
import { steps } from './steps.ts';
import { sums } from './sums.ts';
import { transfer } from './transfer.ts';
import { transferYeast } from './transfer-yeast.ts';
import { yeast } from './yeast.ts';

const BENCHMARKS: Readonly<Record<string, () => void | Promise<void>>> = {
  kernels,
  roofline,
  peers,
  scaling,
  sums,
  bits,
  large,
  memory,
  mixed,
  'full-size': fullSize,
  'akita-step': () => fullStep('akita'),
  'enformer-step': () => fullStep('enformer'),
  steps,
  cold,
  schedules,
  transfer,
  'transfer-yeast': transferYeast,
  yeast,
  bpnet,
  input,
  plan,
  'prepare-memory': prepareMemory,
  stages,
};

const { values } = parseArgs({ options: { only: { type: 'string' } } });
const names = values.only === undefined ? Object.keys(BENCHMARKS) : [values.only];
for (const name of names) {
  const benchmark = BENCHMARKS[name];
  if (benchmark === undefined)
    throw new Error(`no benchmark ${name}; there are ${Object.keys(BENCHMARKS).join(', ')}`);
  await benchmark();
}
