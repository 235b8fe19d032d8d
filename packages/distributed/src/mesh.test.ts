import { nn, sgd, trainStep } from '@cohesin/core';
import { expect, test } from 'vitest';
import { distribute } from './distribute.ts';
import { openMesh } from './mesh.ts';
import { packValue, unpackValue } from './packr.ts';

test('whole numbers of devices only', async () => {
  await expect(openMesh({ devices: 0 })).rejects.toThrow(
    /devices is 0; it must be a whole number of at least 1/,
  );
});

test('more devices than leaves are refused', async () => {
  const mesh = await openMesh({ devices: 2 });
  const head = nn.linear({ inputs: 2, outputs: 1 });
  const fn = trainStep({ model: head, loss: nn.mseLoss, optimizer: sgd({ learningRate: 0.1 }) });
  await expect(distribute(fn, { mesh, inputs: { x: [4, 2], y: [4, 1] }, leaves: 1 })).rejects.toThrow(
    /2 devices but only 1 leaves/,
  );
  await mesh.close();
});

test('a rank that dies fails the call, naming the rank, instead of leaving it waiting', async () => {
  const mesh = await openMesh({ devices: 2 });
  const head = nn.linear({ inputs: 2, outputs: 1 });
  const fn = trainStep({ model: head, loss: nn.mseLoss, optimizer: sgd({ learningRate: 0.1 }) });
  const step = await distribute(fn, { mesh, inputs: { x: [4, 2], y: [4, 1] }, leaves: 2 });
  await mesh.ranks[1]!.close(); // its device first, as the protocol asks
  await expect(step({ x: new Float32Array(8), y: new Float32Array(4) })).rejects.toThrow(
    /step 0, rank [01]: .*(rank 1 ended|another rank failed)/,
  );
  await mesh.close();
});

test('manifests keep doubles, typed arrays and nesting exactly', () => {
  const value = {
    rate: 0.1 + 0.2,
    tiny: 5e-324,
    data: Float32Array.of(1, 2, 3),
    nested: { list: [1, 'two', null] },
  };
  expect(unpackValue(packValue(value))).toEqual(value);
});
