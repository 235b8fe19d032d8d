/** Ops and models against reference numbers, and the checks themselves against altered references. */
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Device, type HostTensor, readSafetensors, type Safetensors } from '@cohesin/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  checkFixture,
  checkTensors,
  type FixtureReport,
  GATES,
  type Gates,
  missCount,
  misses,
  reportText,
} from './golden/src/check.ts';
import { absoluteError, largest, relativeError, shareBeyond } from './golden/src/gates.ts';

const FIXTURES = fileURLToPath(new URL('fixtures', import.meta.url));
const OPS = `${FIXTURES}/ops/ops_public.safetensors`;
const MODELS = readdirSync(`${FIXTURES}/models`).filter((file) => !file.startsWith('basset'));
const BPNETS = MODELS.filter((file) => file.includes('bpnet'));
const ADAM_APART = MODELS.filter((file) => file.startsWith('enformer_')); // see test/fixtures/README.md
const BASSET = `${FIXTURES}/models/basset_public.safetensors`;
const COLD_MS = 600_000; // the software driver compiles a model's 160 kernels in minutes when its cache is empty

const CHECKED_OPS = `activation add auc avgpool1d batchnorm_eval batchnorm_train bce_probs bce_with_logits \
clip_global_norm concat concat_dist_2d conv1d conv_transpose1d conv2d crop1d crop2d dense \
gaussian2d_smooth globalavgpool1d lr_schedule matmul matmul_nt maxpool1d maxpool2d metrics mse \
one_to_two optimizer poisson poisson_full poisson_multinomial_basenji \
poisson_multinomial_baskerville reverse_complement shift switch_reverse switch_reverse_triu \
symmetrize_2d upper_tri upsample1d \
basenji_central_mask_features enformer_positional_features rel_shift relative_attention rope separable_conv1d \
standardized_conv1d alphagenome_multinomial attention_pool basenji_targets bpnet_mixture dropout jensenshannon layernorm log_softmax logsumexp mse_udot \
multinomial_nll multinomial_nll_joint poisson_clamped rms_batchnorm_eval rmsnorm soft_cap softmax softmax_pool_shared`;

let device: Device;
beforeAll(async () => {
  device = await Device.open();
});
afterAll(() => device.close());

describe('reference numbers', () => {
  it('hold for every op the library has', async () => {
    const report = await checkFixture(OPS, device);
    expect(misses(report)).toEqual([]);
    expect(report.notSupported).toEqual([]);
    expect(report.supported.length).toBe(141);
    const checkedOps = new Set(report.measurements.map(({ group }) => group.split(' ')[0]));
    expect([...checkedOps]).toEqual(expect.arrayContaining(CHECKED_OPS.split(' ')));
  });

  it('hold for Basset, whole and in two leaves', { timeout: COLD_MS }, async () => {
    const report = await checkFixture(BASSET, device);
    expect(misses(report)).toEqual([]);
    expect(report.supported).toEqual(
      ['inference', 'training', 'rmsprop', 'adam', 'training', 'rmsprop', 'adam'].map(
        (part, i) => `${part}/${i < 4 ? 1 : 2}`,
      ),
    );
  });

  it('hold for a training pass of Basset in windows of 16 KiB', { timeout: COLD_MS }, async () => {
    await using small = await Device.open({ bindingLimit: 16_384 });
    const report = await checkFixture(BASSET, small, { only: 'training/1' });
    expect(misses(report)).toEqual([]);
    expect(report.supported).toEqual(['training/1']);
    expect(small.windowDispatches).toBeGreaterThan(400);
  });

  it.each(BPNETS)('hold for a training pass of %s', { timeout: COLD_MS }, async (file) => {
    const report = await checkFixture(`${FIXTURES}/models/${file}`, device, { only: 'training/1' });
    expect(misses(report)).toEqual([]);
    expect(report.supported).toEqual(['training/1']);
  });

  // The rest of BPNet's files, and two leaves of every model, by `npm run golden`: their kernels take minutes to compile on an empty cache.
  const WHOLE = MODELS.filter((file) => ![...BPNETS, ...ADAM_APART].includes(file));
  it.each(WHOLE)('hold for %s', { timeout: COLD_MS }, async (file) => {
    const report = await checkFixture(`${FIXTURES}/models/${file}`, device, { only: '*/1' });
    expect(misses(report)).toEqual([]);
    expect(report.notSupported).toEqual([]);
    expect(report.supported).toEqual(expect.arrayContaining(['inference/1', 'training/1', 'adam/1']));
  });

  it.each(ADAM_APART)(
    'hold for inference, training and SGD steps of %s',
    { timeout: COLD_MS },
    async (file) => {
      for (const only of ['inference/1', 'training/1', 'sgd/1']) {
        const report = await checkFixture(`${FIXTURES}/models/${file}`, device, { only });
        expect(misses(report)).toEqual([]);
        expect(report.supported).toEqual([only]);
      }
    },
  );

  it('leave out nothing that a model should have', async () => {
    for (const file of ['akita', 'enformer', 'basenji2']) {
      const path = `${FIXTURES}/models/${file}_public.safetensors`;
      const { notChecked, measurements } = await checkFixture(path, device, { only: 'inference/1' });
      expect(notChecked).toEqual([]);
      expect(measurements.filter(({ group }) => group === 'extra').length).toBeGreaterThan(1);
    }
  });
});

describe('a check', () => {
  it('finds a wrong weight', async () => {
    const fixture = await altered(BASSET, 'weight/conv.1.weight', (values) => {
      values[7]! += 0.1;
    });
    expect(missedGroups(await checked(fixture, 'inference/1'))).toContain('eval outputs');
  });

  it('finds a gradient that is off by a factor', { timeout: COLD_MS }, async () => {
    const fixture = await altered(BASSET, 'grad/fc.0.weight', (values) => {
      for (const i of values.keys()) values[i]! *= 1.001;
    });
    const report = await checked(fixture, 'training/1');
    expect(misses(report).map(({ tensor }) => tensor)).toContain('grad/fc.0.weight');
    expect(new Set(misses(report).map(({ tensor }) => tensor)).size).toBe(1);
  });

  it('finds weights that another learning rate left', { timeout: COLD_MS }, async () => {
    const fixture = await readSafetensors(BASSET);
    const settings = JSON.parse(fixture.metadata.optimizer_adam!);
    fixture.metadata.optimizer_adam = JSON.stringify({ ...settings, lr: settings.lr * 1.1 });
    expect(missedGroups(await checked(fixture, 'adam/1'))).toContain('after3_adam');
  });

  it('finds NaN, also where it stops the training step', { timeout: COLD_MS }, async () => {
    const fixture = await altered(BASSET, 'weight/out.weight', (values) => {
      values[0] = Number.NaN;
    });
    expect(missedGroups(await checked(fixture, 'inference/1'))).toEqual(['eval outputs', 'losses']);
    const [miss] = misses(await checked(fixture, 'adam/1'));
    expect(miss?.note).toContain('not finite');
  });

  it('finds a wrong value of an op, and one in an exact one', async () => {
    for (const name of ['conv1d_k5/out/y', 'conv1d_k5/grad/w', 'shift_+3/out/y', 'optim/out/adamw/step5/b']) {
      const fixture = await altered(OPS, name, (values) => {
        values[3]! += 1e-3 * largest(values);
      });
      const [group, kind, ...rest] = name.split('/') as [string, string, ...string[]];
      const only = group === 'optim' ? `optim/${rest[0]}` : group;
      const found = misses(await checked(fixture, only));
      expect(found.map(({ tensor }) => tensor)).toEqual([
        group === 'optim' ? `${only}/out/step5/b` : `${group}/${kind}/${rest.join('/')}`,
      ]);
    }
  });

  it('counts a case without code as a miss', async () => {
    const metadata = { cases: JSON.stringify({ teleport_x2: { op: 'teleport' } }) };
    const report = await checked({ tensors: new Map(), metadata }, '*');
    expect(missCount(report)).toBe(1);
    expect(reportText(report)).toContain('not supported: teleport_x2');
    const unknown = await checked({ tensors: new Map(), metadata: {} }, '*');
    expect(missCount(unknown)).toBe(1);
    expect(missCount(await checkFixture(OPS, device, { only: 'conv9d*' }))).toBe(1);
  });

  it('says which tensor missed which gate', async () => {
    const report = await checkFixture(OPS, device, { only: 'act_tanh', gates: { opOutputs: 0 } });
    expect(reportText(report)).toMatch(/MISS activation outputs +\S+ > 0 +act_tanh\/out\/y/);
  });

  const BASENJI2 = `${FIXTURES}/models/basenji2_public.safetensors`;
  const WIRING: readonly (readonly [keyof Gates, string, string])[] = [
    ['opOutputs', OPS, 'conv1d_k5'],
    ['opGradients', OPS, 'conv1d_k5'],
    ['largeMeanOutputs', OPS, 'batchnorm_train_1d_large_mean'],
    ['largeMeanGradients', OPS, 'batchnorm_train_1d_large_mean'],
    ['outputs', BASSET, 'inference/1'],
    ['losses', BASSET, 'inference/1'],
    ['gradients', BASSET, 'training/1'],
    ['gradientsOfModel', BASSET, 'training/1'],
    ['batchNorm', BASSET, 'training/1'],
    ['adaptiveShare', BASSET, 'rmsprop/1'],
    ['adaptiveDistance', BASSET, 'rmsprop/1'],
    ['lossCurve', BASSET, 'rmsprop/1'],
    ['runningAfterSteps', BASSET, 'rmsprop/1'],
    ['sgdUpdate', BASENJI2, 'sgd/1'],
  ];
  it.each(WIRING)('misses when the gate of %s is shut', { timeout: COLD_MS }, async (gate, file, only) => {
    const report = await checkFixture(file, device, { only, gates: { [gate]: -1 } });
    expect(misses(report).length).toBeGreaterThan(0);
  });

  it('has a wiring test for every gate', () => {
    expect(WIRING.map(([gate]) => gate).sort()).toEqual(Object.keys(GATES).sort());
  });
});

describe('errors', () => {
  it('are relative to the largest reference, absolute beside zeros and infinite beside NaN', () => {
    expect(relativeError([1, 4.5], [1, 5])).toBeCloseTo(0.1, 15);
    expect(relativeError([0.25, 0], [0, 0])).toBe(0.25);
    expect(relativeError([Number.NaN, 1], [1, 1])).toBe(Number.POSITIVE_INFINITY);
    expect(absoluteError([1], [1, 1])).toBe(Number.POSITIVE_INFINITY);
    expect(shareBeyond([1, 2, 3, 4], [1, 2, 3, 5], 0.5)).toBe(0.25);
    expect(shareBeyond([1, Number.NaN], [1, 2], 0.5)).toBe(Number.POSITIVE_INFINITY);
  });
});

/** A fixture with one tensor changed. */
async function altered(
  path: string,
  name: string,
  change: (values: Float32Array) => void,
): Promise<Safetensors> {
  const { tensors, metadata } = await readSafetensors(path);
  const { shape, data } = tensors.get(name)!;
  const values = Float32Array.from(data as Float32Array);
  change(values);
  const changed: HostTensor = { shape, dtype: 'f32', data: values };
  return { tensors: new Map([...tensors, [name, changed]]), metadata };
}

const checked = (fixture: Safetensors, only: string): Promise<FixtureReport> =>
  checkTensors('altered', fixture, device, { only });

function missedGroups(report: FixtureReport): readonly string[] {
  return [...new Set(misses(report).map(({ group }) => group))];
}
