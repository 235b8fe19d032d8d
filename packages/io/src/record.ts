/**
 * Training records: one sequence and its targets, in the dialects of `tf.train.Example` in use.
 *
 * | | `sequence` | `target` |
 * |-|-|-|
 * | baskerville, Borzoi, current basenji (`seq_1hot: true`) | u8 codes, length bytes | f16 bytes |
 * | Basenji2, Enformer | u8 or bool one-hot, 4 × length bytes | f16 bytes |
 * | Akita, with int64 `genome` | bool one-hot | f16 bytes, upper triangle |
 * | basenji 2018 | u8 one-hot | FloatList |
 */
import { TfRecordError, type TfRecordFault } from './errors.ts';
import { decodeExample, type Example, encodeExample, type Feature } from './example.ts';
import { copyF16, firstNonFiniteF16 } from './float16.ts';

/** Sizes that every record of a data set shares. */
export interface RecordShape {
  /** Bases per sequence, in bp. */
  readonly sequenceLengthBp: number;
  /** Bins per target, or entries of the upper triangle of a contact map. */
  readonly targetLength: number;
  readonly numTargets: number;
  /** What the data set says of itself (`seq_1hot`). The byte length decides; this only completes errors. */
  readonly sequenceCoded?: boolean;
}

/** Row-major `[targetLength, numTargets]`, in the precision of the file. */
export type Targets =
  | { readonly dtype: 'f16'; readonly data: Uint16Array }
  | { readonly dtype: 'f32'; readonly data: Float32Array };

export interface SequenceRecord {
  /** One code per bp: 0..3 for A, C, G, T and 4 for N. `[sequenceLengthBp]` */
  readonly sequence: Uint8Array;
  readonly targets: Targets;
  /** Which genome the sequence is from, in files of several. */
  readonly genome?: number;
}

/** Where a record is, for errors. */
export type RecordPlace = Pick<TfRecordFault, 'file' | 'recordIndex' | 'offset'>;

/** Where a decoded record goes: one byte a base, and room for f32 targets, of which f16 ones take the first half. */
export interface RecordMemory {
  /** `[sequenceLengthBp]` */
  readonly sequence: Uint8Array;
  /** `[targetLength × numTargets]` */
  readonly targets: Float32Array;
}

export interface DecodeRecordOptions {
  /** Lets NaN and infinite targets through. */
  readonly allowNonFinite?: boolean;
  /** Memory for the record; new by default. */
  readonly into?: RecordMemory;
}

export interface EncodeRecordOptions {
  /** One byte per base, or four. */
  readonly sequence?: 'codes' | 'one-hot';
  /** The feature `umap` of baskerville: 1 for each bin that reads cannot be mapped to. `[targetLength]` */
  readonly unmappable?: Uint8Array;
}

/**
 * The record in a serialized `tf.train.Example`; it shares no memory with `bytes`.
 *
 * @throws TfRecordError with the feature at fault and where in it
 */
export function decodeRecord(
  bytes: Uint8Array,
  shape: RecordShape,
  place: RecordPlace,
  { allowNonFinite = false, into }: DecodeRecordOptions = {},
): SequenceRecord {
  const example = parse(bytes, place);
  const sequence = decodeSequence(soleBytes(example, 'sequence', place), shape, place, into?.sequence);
  const { targets, finite } = decodeTargets(present(example, 'target', place), shape, place, into?.targets);
  if (!finite && !allowNonFinite) checkFinite(targets, shape, place);
  const genome = example.get('genome');
  if (genome?.kind !== 'int64' || genome.values.length === 0) return { sequence, targets };
  return { sequence, targets, genome: Number(genome.values[0]) };
}

/** A serialized `tf.train.Example`: f16 targets as bytes, f32 targets as a FloatList. */
export function encodeRecord(
  { sequence, targets, genome }: SequenceRecord,
  { sequence: storage = 'codes', unmappable }: EncodeRecordOptions = {},
): Uint8Array {
  const { data } = targets;
  const target: Feature =
    targets.dtype === 'f32'
      ? { kind: 'float', values: targets.data }
      : { kind: 'bytes', values: [new Uint8Array(data.buffer, data.byteOffset, data.byteLength)] };
  const stored = storage === 'codes' ? sequence : toOneHot(sequence);
  const features: [string, Feature][] = [
    ['sequence', { kind: 'bytes', values: [stored] }],
    ['target', target],
  ];
  if (unmappable) features.push(['umap', { kind: 'bytes', values: [unmappable] }]);
  if (genome !== undefined) features.push(['genome', { kind: 'int64', values: [BigInt(genome)] }]);
  return encodeExample(features);
}

function parse(bytes: Uint8Array, place: RecordPlace): Example {
  try {
    return decodeExample(bytes);
  } catch (cause) {
    const fault = {
      ...place,
      kind: 'bad-protobuf',
      expected: 'a tf.train.Example',
      found: `${bytes.length} bytes that do not parse (${cause instanceof Error ? cause.message : cause})`,
      advice: 'The frame is sound, so it was written this way: check what the file holds.',
    } as const;
    throw new TfRecordError(fault, { cause });
  }
}

function present(example: Example, feature: string, place: RecordPlace): Feature {
  const found = example.get(feature);
  if (found && found.kind !== 'none') return found;
  const names = [...example.keys()].map((name) => JSON.stringify(name)).join(', ');
  throw new TfRecordError({
    ...place,
    kind: 'missing-feature',
    feature,
    expected: `a feature named "${feature}"`,
    found: names === '' ? 'a record without features' : names,
    advice: 'This may be a file of another kind of records: check what wrote it.',
  });
}

function soleBytes(example: Example, name: string, place: RecordPlace): Uint8Array {
  const feature = present(example, name, place);
  if (feature.kind !== 'bytes') throw wrongKind(name, 'one value of bytes', feature, place);
  return sole(feature.values, name, place);
}

function sole(values: readonly Uint8Array[], feature: string, place: RecordPlace): Uint8Array {
  if (values.length === 1) return values[0]!;
  throw new TfRecordError({
    ...place,
    kind: 'wrong-value-count',
    feature,
    expected: 'one value of bytes',
    found: `${values.length} values of ${values.map(({ length }) => length).join(', ') || 0} bytes`,
    advice: 'The record was written in another dialect: check what wrote the file.',
  });
}

function wrongKind(name: string, expected: string, found: Feature, place: RecordPlace): TfRecordError {
  const count = found.kind === 'none' ? 0 : found.values.length;
  return new TfRecordError({
    ...place,
    kind: 'wrong-length-or-kind',
    feature: name,
    expected,
    found: `${count} values of kind ${found.kind}`,
    advice: 'Check the sizes given for the data set (statistics.json) against what wrote the file.',
  });
}

function wrongLength(
  feature: string,
  bytes: Uint8Array,
  expectedBytes: number,
  meaning: string,
  place: RecordPlace,
): TfRecordError {
  return new TfRecordError({
    ...place,
    kind: 'wrong-length',
    feature,
    expectedBytes,
    actualBytes: bytes.length,
    expected: `${expectedBytes} bytes (${meaning})`,
    found: `${bytes.length} bytes`,
    advice: 'Check the sizes given for the data set (statistics.json) against what wrote the file.',
  });
}

/** The byte length tells one code per base from four one-hot bytes, whatever statistics.json says. */
function decodeSequence(
  bytes: Uint8Array,
  shape: RecordShape,
  place: RecordPlace,
  into: Uint8Array = new Uint8Array(shape.sequenceLengthBp),
): Uint8Array {
  const { sequenceLengthBp: length, sequenceCoded = true } = shape;
  if (bytes.length === length) return checkCodes(bytes, into, place);
  if (bytes.length === 4 * length) return fromOneHot(bytes, into, place);
  const expected = sequenceCoded ? length : 4 * length;
  const meaning = `${length} bp as ${sequenceCoded ? 'codes; one-hot would take four times as many' : 'one-hot'}`;
  throw wrongLength('sequence', bytes, expected, meaning, place);
}

function checkCodes(bytes: Uint8Array, codes: Uint8Array, place: RecordPlace): Uint8Array {
  for (let position = 0; position < bytes.length; position++) {
    if (bytes[position]! > 4) throw badBase(position, bytes[position]!, 'a code 0..4 (A, C, G, T, N)', place);
  }
  codes.set(bytes);
  return codes;
}

function fromOneHot(bytes: Uint8Array, codes: Uint8Array, place: RecordPlace): Uint8Array {
  for (let position = 0, byte = 0; position < codes.length; position++, byte += 4) {
    const a = bytes[byte]!;
    const c = bytes[byte + 1]!;
    const g = bytes[byte + 2]!;
    const t = bytes[byte + 3]!;
    if ((a | c | g | t) > 1 || a + c + g + t > 1) {
      throw badBase(position, Math.max(a, c, g, t), 'at most a single 1 among A, C, G, T', place);
    }
    codes[position] = 4 - 4 * a - 3 * c - 2 * g - t;
  }
  return codes;
}

function toOneHot(codes: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(codes.length * 4);
  codes.forEach((code, position) => {
    if (code < 4) bytes[4 * position + code] = 1;
  });
  return bytes;
}

function badBase(position: number, value: number, expected: string, place: RecordPlace): TfRecordError {
  return new TfRecordError({
    ...place,
    kind: 'bad-base-code',
    feature: 'sequence',
    position,
    value,
    expected,
    found: `${value} at base ${position}`,
    advice:
      'The sequence is stored in an unknown code, or sequence_length is wrong: check what wrote the file.',
  });
}

function decodeTargets(
  feature: Feature,
  shape: RecordShape,
  place: RecordPlace,
  into: Float32Array | undefined,
): { readonly targets: Targets; readonly finite: boolean } {
  const count = shape.targetLength * shape.numTargets;
  const sizes = `${shape.targetLength} × ${shape.numTargets}`;
  if (feature.kind === 'float' && feature.values.length === count) {
    into?.set(feature.values);
    const data = into ?? feature.values;
    return { targets: { dtype: 'f32', data }, finite: data.every(Number.isFinite) };
  }
  if (feature.kind !== 'bytes') {
    throw wrongKind('target', `${sizes} values, as f16 bytes or floats`, feature, place);
  }
  const bytes = sole(feature.values, 'target', place);
  if (bytes.length !== 2 * count) throw wrongLength('target', bytes, 2 * count, `${sizes} f16`, place);
  const data = into ? new Uint16Array(into.buffer, into.byteOffset, count) : new Uint16Array(count);
  const finite = copyF16(bytes, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  return { targets: { dtype: 'f16', data }, finite };
}

function checkFinite({ dtype, data }: Targets, { numTargets }: RecordShape, place: RecordPlace): void {
  const at = dtype === 'f16' ? firstNonFiniteF16(data) : data.findIndex((value) => !Number.isFinite(value));
  if (at < 0) return;
  const bin = Math.floor(at / numTargets);
  const track = at % numTargets;
  throw new TfRecordError({
    ...place,
    kind: 'non-finite-target',
    feature: 'target',
    bin,
    track,
    expected: 'finite targets',
    found: `${dtype === 'f16' ? `f16 bits 0x${data[at]!.toString(16)}` : data[at]} in bin ${bin} of track ${track}`,
    advice: 'Coverage beyond 65 504 overflows f16: clip or scale that track and write the data set again.',
  });
}
