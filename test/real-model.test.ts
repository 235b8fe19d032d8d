/** The one trained model there is: baskerville's mini Borzoi, its Keras file against its published predictions. */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { compile, Device, oneHot, predictStep, readSafetensors } from '@cohesin/core';
import { f16ToF32, openDataset } from '@cohesin/io';
import { foldSums, kerasWeights, loadWeights, modelFromParams, pearson, sequenceSums } from '@cohesin/models';
import { describe, expect, it } from 'vitest';

const SHARED = resolve(process.env.COHESIN_SHARED ?? fileURLToPath(new URL('../../shared', import.meta.url)));
const REAL = join(SHARED, 'golden/models/real');
const REFERENCE = join(SHARED, 'golden/models/miniborzoi_real_public.safetensors');
const NAMES = join(SHARED, 'spec/tensors/miniborzoi_keras_h5.tsv');
const present = [REAL, REFERENCE, NAMES].every((path) => existsSync(path));
const COLD_MS = 600_000;

const built = async () => modelFromParams(JSON.parse(await readFile(join(REAL, 'params.json'), 'utf8')));

describe.skipIf(!present)(
  `mini Borzoi${present ? '' : ` (skipped: ${REAL} is absent; set COHESIN_SHARED)`}`,
  () => {
    it('has the names and shapes of its Keras file', async () => {
      const listed = (await readFile(NAMES, 'utf8'))
        .split('\n')
        .filter((line) => line && !line.startsWith('#'));
      const { entries } = kerasWeights((await built()).model);
      const own = entries.map(({ name, shape, fileShape = shape }) => `${name}\t${fileShape.join('x')}`);
      expect(own.sort()).toEqual(listed.sort());
    });

    // 5e-5 of the largest: the gate for f32 against float64; Pearson r over this one sequence within 2e-4.
    it('predicts a real window from a TFRecord as published', { timeout: COLD_MS }, async () => {
      const model = await built();
      const { tensors } = await readSafetensors(REFERENCE);
      const [record] = (await first(await openDataset(join(REAL, 'hg38')))).records;
      const device = await Device.open();
      const step = await compile(
        predictStep({ model: model.model, prepare: ({ codes }) => ({ x: oneHot(codes!), y: codes! }) }),
        { device, inputs: { codes: { shape: [1, 131_072], dtype: 'u8' } } },
      );
      step.state.write(await loadWeights(model, join(REAL, 'model.h5')));
      const { prediction } = await step({ codes: record!.sequence });
      await device.close();
      const expected = firstOf(tensors.get('eval_output/pred')!.data as Float32Array);
      const largest = expected.reduce((most, value) => Math.max(most, value), 0);
      const error = expected.reduce(
        (most, value, i) => Math.max(most, Math.abs(value - Number(prediction!.data[i]))),
        0,
      );
      expect(prediction!.data.length).toBe(expected.length);
      expect(error / largest).toBeLessThan(5e-5);

      const target = f16ToF32(firstOf(tensors.get('input/target')!.data as Uint16Array));
      const r = (values: Float32Array): number =>
        pearson(foldSums([sequenceSums(values, target, { tracks: 74 })])).mean;
      expect(Math.abs(r(prediction!.data as Float32Array) - r(Float32Array.from(expected)))).toBeLessThan(
        2e-4,
      );
    });
  },
);

async function first(dataset: Awaited<ReturnType<typeof openDataset>>) {
  for await (const batch of dataset.batches('test', { batch: 1 })) return batch;
  throw new Error('the data set has no test sequences');
}

/** The values of the first of two sequences. */
function firstOf<Values extends Float32Array | Uint16Array>(values: Values): Values {
  return values.subarray(0, values.length / 2) as Values;
}
