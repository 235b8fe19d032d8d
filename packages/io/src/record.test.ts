import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TfRecordError } from './errors.ts';
import { decodeExample, encodeExample, type Feature } from './example.ts';
import { f32ToF16 } from './float16.ts';
import { decodeRecord, encodeRecord, type RecordShape, type SequenceRecord } from './record.ts';

const SHAPE: RecordShape = { sequenceLengthBp: 7, targetLength: 3, numTargets: 2 };
const PLACE = { file: 'train-0.tfr', recordIndex: 4, offset: 99 };
const codes = fc.uint8Array({ minLength: 7, maxLength: 7, max: 4 });
const floats = fc.float32Array({ minLength: 6, maxLength: 6, noNaN: true, noDefaultInfinity: true });
const sequence = Uint8Array.of(0, 1, 2, 3, 4, 0, 3);
const bits = f32ToF16([1, 2, 3, 4, 5, 6]);
const bytesOf = (values: Uint16Array) => new Uint8Array(values.buffer);
const bytes = (...values: Uint8Array[]): Feature => ({ kind: 'bytes', values });
const SOUND: Record<string, Feature> = { sequence: bytes(sequence), target: bytes(bytesOf(bits)) };

function decode(features: Record<string, Feature>, shape: RecordShape = SHAPE): SequenceRecord {
  return decodeRecord(encodeExample(Object.entries(features)), shape, PLACE);
}

function fault(features: Record<string, Feature>, shape?: RecordShape): TfRecordError {
  try {
    decode(features, shape);
  } catch (error) {
    if (error instanceof TfRecordError) return error;
  }
  throw new Error('expected a TfRecordError');
}

describe('records', () => {
  it('survive encoding in every dialect', () => {
    const storage = fc.constantFrom('codes' as const, 'one-hot' as const);
    const genome = fc.option(fc.nat(5), { nil: undefined });
    fc.assert(
      fc.property(codes, floats, storage, genome, fc.boolean(), (sequence, values, storage, genome, half) => {
        const targets = half
          ? { dtype: 'f16' as const, data: f32ToF16(values.map((value) => value % 60_000)) }
          : { dtype: 'f32' as const, data: values };
        const record = { sequence, targets, ...(genome === undefined ? {} : { genome }) };
        const stored = encodeRecord(record, { sequence: storage });
        expect(decodeRecord(stored, SHAPE, PLACE)).toEqual(record);
        const length = decodeExample(stored).get('sequence');
        expect(length).toMatchObject({ kind: 'bytes', values: [{ length: storage === 'codes' ? 7 : 28 }] });
      }),
    );
  });

  it('keep no hold on the bytes they came from', () => {
    const stored = encodeRecord({ sequence, targets: { dtype: 'f16', data: bits } });
    const record = decodeRecord(stored, SHAPE, PLACE);
    stored.fill(255);
    expect(record).toEqual({ sequence, targets: { dtype: 'f16', data: bits } });
  });

  it('are told apart by length, whatever the data set says of itself', () => {
    for (const sequenceCoded of [true, false]) {
      expect(decode(SOUND, { ...SHAPE, sequenceCoded }).sequence).toEqual(sequence);
    }
    const short = { ...SOUND, sequence: bytes(new Uint8Array(6)) };
    expect(fault(short)).toMatchObject({ kind: 'wrong-length', expectedBytes: 7, actualBytes: 6 });
    expect(fault(short, { ...SHAPE, sequenceCoded: false })).toMatchObject({ expectedBytes: 28 });
  });

  it('name the feature and the place of a fault', () => {
    const { sequence: _, ...noSequence } = SOUND;
    expect(fault(noSequence)).toMatchObject({ kind: 'missing-feature', feature: 'sequence', ...PLACE });
    expect(fault({ ...SOUND, target: { kind: 'none' } })).toMatchObject({ kind: 'missing-feature' });
    const twice = { ...SOUND, target: bytes(bytesOf(bits), bytesOf(bits)) };
    expect(fault(twice)).toMatchObject({ kind: 'wrong-value-count', feature: 'target' });
    const long = { ...SOUND, target: bytes(new Uint8Array(24)) };
    expect(fault(long)).toMatchObject({ kind: 'wrong-length', expectedBytes: 12, actualBytes: 24 });
    const counts = { ...SOUND, target: { kind: 'int64', values: [1n] } } as const;
    expect(fault(counts)).toMatchObject({ kind: 'wrong-length-or-kind', feature: 'target' });
    const floats = { ...SOUND, sequence: { kind: 'float', values: new Float32Array(7) } } as const;
    expect(fault(floats)).toMatchObject({ kind: 'wrong-length-or-kind', feature: 'sequence' });
    expect(fault(long).message).toMatch(
      /train-0\.tfr: record 4 at byte 99 .* feature target: wrong-length: expected 12/,
    );
  });

  it('refuse bases that are none', () => {
    const five = { ...SOUND, sequence: bytes(Uint8Array.of(0, 1, 5, 3, 4, 0, 3)) };
    expect(fault(five)).toMatchObject({ kind: 'bad-base-code', position: 2, value: 5 });
    for (const row of [
      [1, 1, 0, 0],
      [0, 2, 0, 0],
      [255, 1, 0, 0],
      [1, 1, 1, 1],
    ]) {
      const oneHot = new Uint8Array(28);
      oneHot.set(row, 12);
      expect(fault({ ...SOUND, sequence: bytes(oneHot) })).toMatchObject({
        kind: 'bad-base-code',
        position: 3,
      });
    }
  });

  it('refuse targets that are not finite, unless told to let them through', () => {
    for (const value of [NaN, Infinity, -Infinity]) {
      const halves = { ...SOUND, target: bytes(bytesOf(f32ToF16([1, 2, 3, value, 5, value]))) };
      expect(fault(halves)).toMatchObject({ kind: 'non-finite-target', bin: 1, track: 1 });
      const singles: Feature = { kind: 'float', values: Float32Array.of(1, 2, 3, 4, value, 6) };
      expect(fault({ ...SOUND, target: singles })).toMatchObject({
        kind: 'non-finite-target',
        bin: 2,
        track: 0,
      });
      const stored = encodeExample(Object.entries({ ...SOUND, target: singles }));
      const { targets } = decodeRecord(stored, SHAPE, PLACE, { allowNonFinite: true });
      expect(targets.data[4]).toBe(value);
    }
  });

  it('refuse bytes that are no Example', () => {
    const stored = encodeRecord({ sequence, targets: { dtype: 'f16', data: bits } });
    for (const wrong of [stored.subarray(0, -1), new TextEncoder().encode('not a protobuf at all')]) {
      expect(() => decodeRecord(wrong, SHAPE, PLACE)).toThrow(/record 4 at byte 99 .*: bad-protobuf: /);
    }
    expect(() => decodeRecord(new Uint8Array(0), SHAPE, PLACE)).toThrow(
      /missing-feature: .* a record without features/,
    );
  });
});
