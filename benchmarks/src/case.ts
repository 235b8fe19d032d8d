/** One case in a process of its own: `node case.js NAME` prints `@@` and a JSON line, as the peers do. */
import { Device } from '@cohesin/core';
import { CASES } from './cases.ts';

const MIN_RUNS = 5;
const TRAINING_RUNS = 20;

const name = process.argv[2];
const found = CASES.find((candidate) => candidate.name === name);
if (found === undefined)
  throw new Error(`no case ${name}; there are ${CASES.map((one) => one.name).join(', ')}`);

const device = await Device.open();
const begun = performance.now();
const prepared = await found.prepare(device);
const prepareMs = performance.now() - begun;
const timed = async (): Promise<number> => {
  const start = performance.now();
  await prepared.run();
  return performance.now() - start;
};
const firstMs = await timed();
const trains = found.flops === undefined && found.bytes === undefined;
const [warmUp, runs] = trains ? [7, TRAINING_RUNS] : [1, MIN_RUNS];
for (let i = 0; i < warmUp; i++) await timed();
const ts: number[] = [];
for (let i = 0; i < runs; i++) ts.push(await timed());
const last = await prepared.run();
const out = (await prepared.result?.()) ?? last;
const line = {
  peer: 'cohesin',
  case: name,
  prepareMs,
  firstMs,
  ts,
  digest: digest(out),
  device: device.info,
};
process.stdout.write(`@@${JSON.stringify(line)}\n`);
prepared.close();
await device.close();

/** What is compared with the peers' results: sums that no layout changes, and single values. */
function digest(values: Float32Array): { n: number; sum: number; abs: number; v: number[] } {
  const at = [0, 1, Math.floor(values.length / 2), values.length - 1];
  return {
    n: values.length,
    sum: values.reduce((total, value) => total + value, 0),
    abs: values.reduce((total, value) => total + Math.abs(value), 0),
    v: at.map((i) => values[i]!),
  };
}
