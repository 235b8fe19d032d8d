/** Every stage of Akita's targets against a reference in Python (cooltools and astropy). */
import { fileURLToPath } from 'node:url';
import { readSafetensors } from '@cohesin/core';
import { beforeAll, describe, expect, it } from 'vitest';
import { f32ToF16 } from '../float16.ts';
import { smoothMap } from '../gaussian.ts';
import { coarsegrain } from './coarsegrain.ts';
import { clipContacts, contactTargets, fillMissing, observedOverExpected } from './contact-target.ts';

const FIXTURE = fileURLToPath(
  new URL('../../../../test/fixtures/io/akita_targets_public.safetensors', import.meta.url),
);
const BINS = 72;

let tensors: Map<string, { readonly data: unknown }>;
beforeAll(async () => {
  ({ tensors } = await readSafetensors(FIXTURE));
});
const at = (name: string): Float64Array => tensors.get(name)!.data as Float64Array;
const blacklisted = (): Float64Array =>
  at('input/balanced').map((value, i) =>
    [Math.floor(i / BINS), i % BINS].some((bin) => bin >= 40 && bin < 43) ? Number.NaN : value,
  );

/** 1e-9 relative: the same arithmetic in f64, in another order of sums. */
function expectClose(found: ArrayLike<number>, expected: ArrayLike<number>): void {
  expect(found.length).toBe(expected.length);
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    expect(Number.isNaN(found[i])).toBe(Number.isNaN(expected[i]));
    if (!Number.isNaN(expected[i]))
      worst = Math.max(worst, Math.abs(found[i]! - expected[i]!) / Math.max(1, Math.abs(expected[i]!)));
  }
  expect(worst).toBeLessThan(1e-9);
}

describe('contact targets', () => {
  it('equal the reference after each stage', () => {
    expectClose(clipContacts(blacklisted(), BINS, 2), at('stage/clipped'));
    expectClose(
      coarsegrain(at('stage/clipped'), tensors.get('input/raw_counts')!.data as Int32Array, BINS),
      at('stage/coarsegrained'),
    );
    expectClose(observedOverExpected(at('stage/coarsegrained'), BINS), at('stage/obsexp'));
    expectClose(
      smoothMap(at('stage/log_interp'), { height: BINS, width: BINS, deviation: 1 }),
      at('stage/smoothed'),
    );
  });

  it('equal the reference from a window to f16', () => {
    const window = {
      bins: BINS,
      balanced: blacklisted(),
      counts: tensors.get('input/raw_counts')!.data as Int32Array,
    };
    const found = contactTargets(window, { diagonalOffset: 2, clip: 2, smoothing: 1, cropBins: 6 });
    const expected = tensors.get('output/target')!.data as Float32Array;
    expect(found.length).toBe(1711);
    expect(Math.max(...found.map((value, i) => Math.abs(value - expected[i]!)))).toBeLessThan(1e-6); // expected is f32
    expect(f32ToF16(found)).toEqual(tensors.get('output/target_f16')!.data);
  });

  it('fill missing rows from both sides, and from zeros at the ends', () => {
    const { NaN: no } = Number;
    const map = Float64Array.of(no, no, no, no, 4, 6, no, 6, 8);
    expect([...fillMissing(map, 3)]).toEqual([1, 2, 3, 2, 4, 6, 3, 6, 8]);
    const more = Float64Array.of(1, no, 3, no, no, 4, 5, no, 3, 5, 6, no, no, no, no, no); // bins 0 and 1, and all of bin 3
    expect(() => fillMissing(more, 4)).toThrow('bins 0 and 1: a missing contact outside');
  });

  it('refuse a window that is filtered whole', () => {
    expect(() => clipContacts(new Float64Array(16).fill(Number.NaN), 4, 2)).toThrow(
      'no valid contact at 2 bins',
    );
  });
});
