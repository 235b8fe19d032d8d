import { expect, test } from 'vitest';
import { compile } from './compile/compile.ts';
import { Device } from './device.ts';
import { alone, type Exchange } from './exchange.ts';
import { initialScales } from './gradient-scale.ts';
import { linear } from './nn/linear.ts';
import { mseLoss } from './nn/loss.ts';
import { sequential } from './nn/sequential.ts';
import { relu } from './ops/elementwise.ts';
import { sgd } from './optim/sgd.ts';
import { trainStep } from './train-step.ts';

const values = (count: number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => Math.sin(i * 12.9898) * 1.7);

test('gradient sums are finished one after another, from the last layer on, before work on later ones begins', async () => {
  await using device = await Device.open();
  const model = sequential({
    first: linear({ inputs: 5, outputs: 7 }),
    relu,
    second: linear({ inputs: 7, outputs: 37 }),
    last: linear({ inputs: 37, outputs: 3 }),
  });
  const train = trainStep({ model, loss: mseLoss, optimizer: sgd({ learningRate: 0.1 }) });
  const { executor, program } = await compile(train, { device, inputs: { x: [6, 5], y: [6, 3] }, leaves: 3 });
  executor.setInputs({ x: values(6 * 5), y: values(6 * 3) });
  const tensors = [...program.sums!.tensors].sort((a, b) => a.offset - b.offset);
  expect(tensors.map(({ name }) => name.split('.')[0])).toEqual(
    ['last', 'second', 'first'].flatMap((layer) => [layer, layer]),
  );
  const dispatches: number[] = [];
  const early: Uint8Array[] = [];
  let final = new Uint8Array();
  const exchange: Exchange = {
    ...alone,
    sum: async (_, range, submit) => {
      for (const { offset, count } of tensors) {
        const end = 8 * (offset + count);
        submit(end);
        dispatches.push(executor.dispatchCount);
        early.push(...(await device.read([{ ...range, bytes: end }])));
      }
      submit(Number.POSITIVE_INFINITY);
      [final] = (await device.read([range])) as [Uint8Array<ArrayBuffer>];
    },
  };
  await executor.run(
    { seed: 0, step: 0, sequence: 0, scalars: { learningRate: 0.1 } },
    exchange,
    initialScales(program.sums!),
  );
  for (const [i, sums] of early.entries()) {
    expect(sums.some((byte) => byte !== 0)).toBe(true);
    expect(sums, tensors[i]!.name).toEqual(final.subarray(0, sums.length));
  }
  expect(dispatches.every((count, i) => i === 0 || count > dispatches[i - 1]!)).toBe(true);
});
