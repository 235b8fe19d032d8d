import { compile, Device, hostTensor, reverseTriangle, trianglePairs } from '@cohesin/core';
import { f32ToF16 } from '@cohesin/io';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  codesInput,
  packRecords,
  prepareTraining,
  type TargetView,
  targetsInput,
  trainingInputs,
} from './batch.ts';

let device: Device;
beforeAll(async () => {
  device = await Device.open();
});
afterAll(() => device.close());

test('targets of a contact map turn around with their sequence, as the triangle of the turned map', async () => {
  const [bins, offset, tracks] = [7, 2, 3];
  const pairs = trianglePairs(bins, { offset });
  const view: TargetView = {
    tracks,
    strandPair: [0, 1, 2],
    cropBins: 0,
    outputShape: [pairs, tracks],
    isTriangle: true,
  };
  const declared = { inputs: { codes: codesInput(16) }, targets: { targets: targetsInput(pairs, tracks) } };
  const prepare = prepareTraining(view);
  const step = await compile((inputs) => ({ y: prepare(inputs).y }), {
    device,
    inputs: trainingInputs(2, declared),
  });
  const targets = Float32Array.from({ length: 2 * pairs * tracks }, (_, i) => i);
  const { y } = await step({
    codes: new Uint8Array(2 * 16),
    targets: f32ToF16(targets),
    augment: hostTensor([2, 2], [0, 1, 1, 0]),
  });
  const order = reverseTriangle(bins, { offset });
  const place = (i: number): number => {
    const [sequence, pair, track] = [
      Math.floor(i / (pairs * tracks)),
      Math.floor(i / tracks) % pairs,
      i % tracks,
    ];
    return (sequence * pairs + (sequence === 1 ? order[pair]! : pair)) * tracks + track;
  };
  expect(y!.shape).toEqual([2, pairs, tracks]);
  expect([...y!.data]).toEqual(Array.from(targets, (_, i) => targets[place(i)]));
  expect([...order]).not.toEqual([...order.keys()]);
});

test('targets stored in another precision than the step takes are refused, not cut to integers', () => {
  const inputs = { codes: codesInput(2), targets: targetsInput(1, 2) };
  const sequence = Uint8Array.of(0, 3);
  const half = { sequence, targets: { dtype: 'f16', data: f32ToF16([0.5, 2]) } } as const;
  expect(packRecords([half], 2, inputs, 2)).toEqual({
    codes: Uint8Array.of(0, 3, 4, 4),
    targets: Uint16Array.of(0x3800, 0x4000, 0, 0),
  });
  const single = { sequence, targets: { dtype: 'f32', data: Float32Array.of(0.5, 2) } } as const;
  expect(() => packRecords([single], 2, inputs, 2)).toThrow('targets are stored as f32, the step takes f16');
});
