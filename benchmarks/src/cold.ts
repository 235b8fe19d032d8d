/** How long a first training step takes when the driver has compiled nothing before: ours and TensorFlow.js's in turn. */
import type { DeviceInfo } from '@cohesin/core';
import { CASES } from './cases.ts';
import { installed, type Line, OTHERS, OURS, run } from './peers.ts';
import { environment, median, publish, summarize, table } from './report.ts';

const ROUNDS = 3;
const CONTESTANTS = [OURS, ...OTHERS.filter(({ name }) => name === 'TensorFlow.js')];
const STEPS = CASES.filter(({ name }) => name.startsWith('train_'));

/** From the function to the first loss: tracing, compiling, allocating and one step. */
const firstLossMs = ({ prepareMs = 0, firstMs }: Line): number => prepareMs + firstMs;

/** @throws when a case does not run. */
export function cold(): void {
  if (!installed('cold')) return;
  let device: DeviceInfo | undefined;
  const times = new Map<string, number[]>();
  for (let round = 0; round < ROUNDS; round++) {
    for (const one of STEPS) {
      for (const who of round % 2 === 0 ? CONTESTANTS : [...CONTESTANTS].reverse()) {
        const line = run(who, one, { MESA_SHADER_CACHE_DISABLE: 'true' });
        if (typeof line === 'string') throw new Error(`${who.name} ${one.name}: ${line}`);
        device ??= line.device;
        const key = `${one.name} ${who.name}`;
        times.set(key, [...(times.get(key) ?? []), firstLossMs(line)]);
      }
    }
  }
  const rows = [...times].map(([key, own]) => {
    const { medianMs, bestMs } = summarize(own);
    return [key, ...[medianMs, bestMs, Math.max(...own)].map((ms) => (ms / 1000).toFixed(2))];
  });
  const ratios = STEPS.map(({ name }) => {
    const of = (who: string): readonly number[] => times.get(`${name} ${who}`)!;
    const [ours, theirs] = [of(OURS.name), of('TensorFlow.js')];
    return { name, median: median(theirs) / median(ours), best: Math.min(...theirs) / Math.min(...ours) };
  });
  const text = [
    `From the function to the loss of the first step, the driver's cache of compiled kernels off (MESA_SHADER_CACHE_DISABLE), each in a
process of its own, ${ROUNDS} rounds in turn. Starting the process and opening the device are not counted.`,
    table(['seconds', 'median', 'best', 'worst'], rows),
    ratios
      .map(
        ({ name, median: ratio, best }) =>
          `${name}: TensorFlow.js takes ${ratio.toFixed(2)} times as long (best ${best.toFixed(2)}; bar 1).`,
      )
      .join(' '),
  ].join('\n\n');
  const data = { times: Object.fromEntries(times), ratios };
  publish({ name: 'cold', title: 'The first step of all', environment: environment(device!), text, data });
}
