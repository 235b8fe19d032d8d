import { augmentSequence, compile, Device, hostTensor, nn, oneHot, predictStep, relu } from '@cohesin/core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { preparePrediction } from './batch.ts';
import { averaged, readAs, turnOf, type Variant, variantsOf } from './ensemble.ts';

let device: Device;
beforeAll(async () => {
  device = await Device.open();
});
afterAll(() => device.close());

const LENGTH = 12;
const [BATCH, TRACKS] = [2, 3];
/** As codes: A, C, G, T are 0…3, N is 4. */
const codesOf = (...sequences: readonly string[]): Uint8Array =>
  Uint8Array.from(sequences.join(''), (base) => 'ACGTN'.indexOf(base));
const SEQUENCES = ['ACGTTGCANACC', 'GGATCCTTAAGA'];

test('a sequence is shifted first, then reverse-complemented, as in training', async () => {
  const codes = codesOf(...SEQUENCES);
  const as = (variant: Variant): number[] => [...readAs(variant, codes, LENGTH)];
  expect(as({ reverse: false, shiftBp: 2 })).toEqual([...codesOf('NNACGTTGCANA', 'NNGGATCCTTAA')]);
  expect(as({ reverse: true, shiftBp: -1 })).toEqual([...codesOf('NGGTNTGCAACG', 'NTCTTAAGGATC')]);
  const inputs = { codes: { shape: [BATCH, LENGTH], dtype: 'u8' }, augment: [BATCH, 2] } as const;
  const step = await compile(({ codes, augment }) => ({ x: augmentSequence(codes!, augment!) }), {
    device,
    inputs,
  });
  const plain = await compile(({ codes }) => ({ x: oneHot(codes!) }), {
    device,
    inputs: { codes: inputs.codes },
  });
  for (const variant of variantsOf({ reverseComplement: true, shiftsBp: [0, 3, -2] })) {
    const row = [variant.reverse ? 1 : 0, variant.shiftBp];
    const augment = hostTensor([BATCH, 2], [...row, ...row]);
    const { x } = await step({ codes, augment });
    const same = await plain({ codes: readAs(variant, codes, LENGTH) });
    expect(same.x!.data).toEqual(x!.data);
  }
});

test('variants are each shift, forward and in reverse', () => {
  expect(variantsOf({ reverseComplement: false, shiftsBp: [0] })).toEqual([{ reverse: false, shiftBp: 0 }]);
  expect(variantsOf({ reverseComplement: true, shiftsBp: [1, 0] })).toEqual([
    { reverse: false, shiftBp: 1 },
    { reverse: true, shiftBp: 1 },
    { reverse: false, shiftBp: 0 },
    { reverse: true, shiftBp: 0 },
  ]);
});

test('the ensemble of a small model is the mean of its predictions made by hand', async () => {
  const [bins, pairs] = [4, [1, 0, 2]]; // tracks 0 and 1 are two strands
  const layers = { conv: nn.conv1d({ inputs: 4, outputs: TRACKS, size: 3, stride: 3, padding: 'valid' }) };
  const model = nn.layer(layers, (x) => relu(layers.conv(x)));
  const step = await compile(predictStep({ model, prepare: preparePrediction }), {
    device,
    inputs: { codes: { shape: [BATCH, LENGTH], dtype: 'u8' } },
    seed: 3,
  });
  const predict = async (codes: Uint8Array): Promise<Float32Array> =>
    (await step({ codes })).prediction!.data as Float32Array;
  const turn = turnOf({ targetLength: bins }, { tracks: TRACKS, strandPair: pairs });
  const variants = variantsOf({ reverseComplement: true, shiftsBp: [1, 0, -1] });
  const codes = codesOf(...SEQUENCES);
  const mean = await averaged(predict, variants, { codes, lengthBp: LENGTH, tracks: TRACKS, turn });

  const forward = [
    ['NACGTTGCANAC', 'NGGATCCTTAAG'],
    ['ACGTTGCANACC', 'GGATCCTTAAGA'],
    ['CGTTGCANACCN', 'GATCCTTAAGAN'],
  ];
  const reverse = [
    ['GTNTGCAACGTN', 'CTTAAGGATCCN'],
    ['GGTNTGCAACGT', 'TCTTAAGGATCC'],
    ['NGGTNTGCAACG', 'NTCTTAAGGATC'],
  ];
  const totals = new Float64Array(BATCH * bins * TRACKS);
  for (const sequences of forward)
    for (const [i, value] of (await predict(codesOf(...sequences))).entries()) totals[i]! += value;
  for (const sequences of reverse) {
    const values = await predict(codesOf(...sequences));
    for (let b = 0; b < BATCH; b++)
      for (let bin = 0; bin < bins; bin++)
        for (let track = 0; track < TRACKS; track++) {
          const i = (b * bins + bins - 1 - bin) * TRACKS + pairs[track]!;
          totals[i]! += values[(b * bins + bin) * TRACKS + track]!;
        }
  }
  expect(totals.some((total) => total > 0.1)).toBe(true);
  for (const [i, total] of totals.entries()) expect(mean[i]).toBeCloseTo(total / 6, 6); // six values in f64, then f32
});

test('a predicted triangle turns back with its map, tracks as they are', async () => {
  const [length, offset, tracks] = [5, 2, 2];
  const map = (turned: boolean): number[] => {
    const values: number[] = [];
    for (let row = 0; row < length; row++)
      for (let column = row + offset; column < length; column++) {
        const [a, b] = turned ? [length - 1 - column, length - 1 - row] : [row, column];
        values.push(10 * a + b, 100 + 10 * a + b);
      }
    return values;
  };
  const turn = turnOf({ targetLength: 6, triangle: { length, offset } }, { tracks, strandPair: [1, 0] });
  const variants = variantsOf({ reverseComplement: true, shiftsBp: [0] });
  const given = [map(false), map(true)];
  const mean = await averaged(async () => Float32Array.from(given.shift()!), variants, {
    codes: codesOf('ACGT'),
    lengthBp: 4,
    tracks,
    turn,
  });
  expect([...mean]).toEqual(map(false));
});
