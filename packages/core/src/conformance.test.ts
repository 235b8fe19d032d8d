import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Device } from './device.ts';
import './index.ts';
import './ops/conv1d.ts';
import './ops/elementwise.ts';
import './ops/matmul.ts';
import './ops/pool.ts';
import './ops/select.ts';
import './ops/sequence.ts';
import { declaredOps } from './op.ts';
import { checkOp } from './testing.ts';

let device: Device;

beforeAll(async () => {
  device = await Device.open();
});

afterAll(async () => {
  await device.close();
});

/** Derived tests that do not apply, and why. */
const SKIPPED: readonly { readonly op: RegExp; readonly check: RegExp; readonly reason: string }[] = [
  {
    op: /^batchNormalize$/,
    check: /central differences/,
    reason: 'its gradient counts on mean and variance being those of x; see the batch norm tests',
  },
  {
    op: /^(mergeMoments|foldMoments)$/,
    check: /NaN/,
    reason: 'a mean that is NaN is passed on, its variance need not be: every use takes both',
  },
  {
    op: /^(clip|adaptive)Scale$/,
    check: /NaN/,
    reason: 'a gradient that is not finite stops the step before its length is used',
  },
  {
    op: /^(reluGradient|log1pReluGradient)$/,
    check: /\(\[1\], .* hides no NaN/,
    reason: 'this one value is below zero, where the gradient is 0 whatever comes in',
  },
  {
    op: /^maxPool1dGradient$/,
    check: /hides no NaN/,
    reason: 'x only decides where dy goes: NaN, which counts as the largest, gets it',
  },
  {
    op: /^renormScale$/,
    check: /hides no NaN/,
    reason: 'weights that are NaN are so times 1 as well',
  },
  { op: /^dropout$/, check: /cut along axis/, reason: 'keyed by the global sequence and the position in it' },
];

/** Ops that nothing is derived for, and why. */
const WITHOUT_SAMPLES: Readonly<Record<string, string>> = {
  input: 'a source',
  parameter: 'a source',
  constant: 'a source',
  scalar: 'a source',
  leafSum: 'an exchange between leaves',
  attentionOutput:
    'its first input as it is; its gradient counts on that being attention of the others: see the attention tests',
  gatherLeaves: 'an exchange between leaves',
  gatherSequences: 'an exchange between sequences',
  ...Object.fromEntries(
    ['ownRows', 'edgeRows', 'extendRows', 'maskRows', 'joinRows', 'tileRows', 'joinTiles'].map((name) => [
      name,
      'depends on the part of a sequence that a leaf is; see the tests of row leaves',
    ]),
  ),
};

describe.each(declaredOps().map(({ name }) => name))('%s', (name) => {
  const op = declaredOps().find((candidate) => candidate.name === name)!;
  if (op.samples === undefined) {
    it('needs no samples', () => {
      expect(
        Object.keys(WITHOUT_SAMPLES),
        `op '${name}' has no samples; add some, or say here why not`,
      ).toContain(name);
    });
    return;
  }
  for (const check of checkOp(name)) {
    const known = SKIPPED.find((skipped) => skipped.op.test(name) && skipped.check.test(check.name));
    const reason = known?.reason ?? check.skip;
    it(reason === undefined ? check.name : `${check.name} (${reason})`, async ({ skip }) => {
      if (reason !== undefined) skip(reason);
      await check.run(device);
    });
  }
});
