/** Everything that can be wrong with a file of records. Frames first, then the Example inside a sound frame. */
export type TfRecordErrorKind =
  | 'length-crc'
  | 'data-crc'
  | 'truncated-record'
  | 'truncated-record-or-too-large'
  | 'truncated-compressed-stream'
  | 'compressed-checksum'
  | 'trailing-compressed-bytes'
  | 'wrong-compression'
  | 'empty-file'
  | 'missing-feature'
  | 'wrong-length'
  | 'wrong-length-or-kind'
  | 'wrong-value-count'
  | 'bad-base-code'
  | 'non-finite-target'
  | 'bad-protobuf';

/** Where a fault is and what was found there; a field is absent where it means nothing for the kind. */
export interface TfRecordFault {
  readonly kind: TfRecordErrorKind;
  readonly file: string;
  /** The record at fault, counted from 0 in its file. */
  readonly recordIndex?: number;
  /** Where that record starts, in bytes of the uncompressed stream. */
  readonly offset?: number;
  /** How many sound records come before the fault. */
  readonly goodRecordsBefore?: number;
  readonly expected: string;
  readonly found: string;
  /** The likely cause and what to do about it. */
  readonly advice: string;
  /** wrong-compression: what the first bytes look like. */
  readonly actual?: 'none' | 'zlib' | 'gzip' | 'text' | 'unknown';
  /** trailing-compressed-bytes: where the zlib stream ends, in bytes of the file. */
  readonly compressedStreamEnd?: number;
  /** The feature of the Example at fault. */
  readonly feature?: string;
  readonly expectedBytes?: number;
  readonly actualBytes?: number;
  /** bad-base-code: the base, in bp from the start of the sequence, and the byte found. */
  readonly position?: number;
  readonly value?: number;
  /** non-finite-target: the bin (or the entry of the upper triangle) and the track. */
  readonly bin?: number;
  readonly track?: number;
}

/**
 * A damaged or unexpected file of records. The message says file, record, byte offset, expected, found and
 * what to do; the same facts are fields.
 */
export class TfRecordError extends Error implements TfRecordFault {
  readonly kind: TfRecordErrorKind;
  readonly file: string;
  readonly expected: string;
  readonly found: string;
  readonly advice: string;
  declare readonly recordIndex?: number;
  declare readonly offset?: number;
  declare readonly goodRecordsBefore?: number;
  declare readonly actual?: 'none' | 'zlib' | 'gzip' | 'text' | 'unknown';
  declare readonly compressedStreamEnd?: number;
  declare readonly feature?: string;
  declare readonly expectedBytes?: number;
  declare readonly actualBytes?: number;
  declare readonly position?: number;
  declare readonly value?: number;
  declare readonly bin?: number;
  declare readonly track?: number;

  constructor(fault: TfRecordFault, options?: ErrorOptions) {
    super(describe(fault), options);
    this.name = 'TfRecordError';
    this.kind = fault.kind;
    this.file = fault.file;
    this.expected = fault.expected;
    this.found = fault.found;
    this.advice = fault.advice;
    Object.assign(this, fault);
  }
}

/** `train-3.tfr: record 17 at byte 1298 (uncompressed): data-crc: expected …, found …. 17 records before it are sound. …` */
function describe(fault: TfRecordFault): string {
  const record =
    fault.recordIndex === undefined
      ? ''
      : ` record ${fault.recordIndex} at byte ${fault.offset} (uncompressed):`;
  const feature = fault.feature === undefined ? '' : ` feature ${fault.feature}:`;
  const good = fault.goodRecordsBefore;
  const sound =
    good === undefined ? '' : ` ${good} ${good === 1 ? 'record' : 'records'} before it can be read.`;
  return `${fault.file}:${record}${feature} ${fault.kind}: expected ${fault.expected}, found ${fault.found}.${sound} ${fault.advice}`;
}
