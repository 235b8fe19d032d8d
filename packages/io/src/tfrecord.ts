/**
 * TFRecord files: frames of `u64 length | u32 masked CRC-32C of the length | data | u32 masked CRC-32C of
 * the data`, little-endian, the whole file optionally compressed with zlib or gzip.
 */

import { type FileHandle, open } from 'node:fs/promises';
import { explain } from '@cohesin/core';
import { ChunkQueue, Scratch } from './chunk-queue.ts';
import { CompressedStreamError, type Compression, readChunks } from './compression.ts';
import { maskedCrc, RunningCrc } from './crc.ts';
import { TfRecordError, type TfRecordFault } from './errors.ts';
import { FRAME_HEADER_BYTES, resolveCompression } from './sniff.ts';

/** One frame of a file. */
export interface FramedRecord {
  /** Counted from 0 in the file. */
  readonly index: number;
  /** Where the frame starts, in bytes of the uncompressed stream. */
  readonly offset: number;
  readonly data: Uint8Array;
}

export interface ReadRecordsOptions {
  /** How the whole file is compressed; 'auto' looks at its first bytes. */
  readonly compression?: Compression | 'auto';
  /** Memory for a record: `data` is then valid only until the next is asked for, of any file that is given the same memory. */
  readonly scratch?: Scratch;
}

const MAX_RECORD_BYTES = 2 ** 31; // a longer record is taken for damage; the largest real ones are 10 MB
const DATA_CRC_BYTES = 4;

/**
 * The records of a file in order, with both CRCs checked. Never more than about one record is in memory.
 *
 * @throws TfRecordError at the first fault, after every record before it has been yielded
 */
export async function* readRecords(
  path: string,
  { compression = 'auto', scratch }: ReadRecordsOptions = {},
): AsyncGenerator<FramedRecord, void, undefined> {
  const handle = await open(path, 'r').catch((cause: unknown) => {
    throw explain(path, cause);
  });
  try {
    const resolved = await resolveCompression(handle, path, compression).catch((cause: unknown) => {
      throw explain(path, cause);
    });
    const queue = new ChunkQueue(readChunks(handle, resolved), scratch ?? new Scratch());
    const records = frames(queue, path, await textOf(handle));
    if (scratch) yield* records;
    else for await (const record of records) yield { ...record, data: record.data.slice() };
  } finally {
    await handle.close();
  }
}

/** The frame of one record: header, data and CRCs. */
export function frameRecord(data: Uint8Array): Uint8Array {
  const frame = new Uint8Array(FRAME_HEADER_BYTES + data.length + DATA_CRC_BYTES);
  const view = new DataView(frame.buffer);
  view.setBigUint64(0, BigInt(data.length), true);
  view.setUint32(8, maskedCrc(frame.subarray(0, 8)), true);
  frame.set(data, FRAME_HEADER_BYTES);
  view.setUint32(FRAME_HEADER_BYTES + data.length, maskedCrc(data), true);
  return frame;
}

async function* frames(
  queue: ChunkQueue,
  file: string,
  text: string | undefined,
): AsyncGenerator<FramedRecord, void, undefined> {
  let offset = 0;
  for (let index = 0; ; index++) {
    const place = { file, recordIndex: index, offset, goodRecordsBefore: index };
    const header = await take(queue, FRAME_HEADER_BYTES, place);
    if (header.length === 0) return;
    const length = recordLength(header, place, text);
    const crc = new RunningCrc(length);
    const body = await take(queue, length + DATA_CRC_BYTES, place, (part) => crc.add(part));
    const data = checkBody(body, length, crc.masked, place);
    yield { index, offset, data };
    offset += FRAME_HEADER_BYTES + body.length;
  }
}

type Place = Pick<TfRecordFault, 'file' | 'recordIndex' | 'offset' | 'goodRecordsBefore'>;

async function take(
  queue: ChunkQueue,
  length: number,
  place: Place,
  onPart?: (part: Uint8Array) => void,
): Promise<Uint8Array> {
  try {
    return await queue.take(length, onPart);
  } catch (cause) {
    if (!(cause instanceof CompressedStreamError)) throw explain(place.file, cause);
    throw new TfRecordError({ ...place, ...cause.fault }, { cause });
  }
}

/** The length in a frame's header, checked against its CRC and against sense. */
function recordLength(header: Uint8Array, place: Place, text: string | undefined): number {
  if (header.length < FRAME_HEADER_BYTES) {
    throw truncated(place, `${FRAME_HEADER_BYTES} bytes of frame header`, header.length);
  }
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  const stored = view.getUint32(8, true);
  const computed = maskedCrc(header.subarray(0, 8));
  if (stored !== computed) throw lengthCrc(place, stored, computed, text);
  const length = view.getBigUint64(0, true);
  if (length <= MAX_RECORD_BYTES) return Number(length);
  throw new TfRecordError({
    ...place,
    kind: 'truncated-record-or-too-large',
    expected: `a record of at most ${MAX_RECORD_BYTES} bytes`,
    found: `a length of ${length} bytes`,
    advice: 'The length was written wrong although its CRC is right: write or download the file again.',
  });
}

function lengthCrc(place: Place, stored: number, computed: number, text: string | undefined): TfRecordError {
  const first = place.recordIndex === 0;
  return new TfRecordError({
    ...place,
    kind: 'length-crc',
    expected: `the CRC of the length bytes, ${hex(computed)}`,
    found: `${hex(stored)}${first && text ? ` in a file that begins with the text ${text}` : ''}`,
    advice: first
      ? 'This may be no TFRecord file, or compressed in another way: check what it is.'
      : 'The length is damaged, or other bytes follow the last record: copy or download the file again.',
  });
}

function checkBody(body: Uint8Array, length: number, computed: number, place: Place): Uint8Array {
  if (body.length < length + DATA_CRC_BYTES) {
    throw truncated(place, `${length} bytes of data and ${DATA_CRC_BYTES} of CRC`, body.length);
  }
  const data = body.subarray(0, length);
  const stored = new DataView(body.buffer, body.byteOffset + length, DATA_CRC_BYTES).getUint32(0, true);
  if (stored === computed) return data;
  throw new TfRecordError({
    ...place,
    kind: 'data-crc',
    expected: `the CRC stored with the data, ${hex(stored)}`,
    found: `${hex(computed)} over its ${length} bytes`,
    advice: 'The data or its CRC is damaged: copy or download the file again.',
  });
}

function truncated(place: Place, expected: string, foundBytes: number): TfRecordError {
  return new TfRecordError({
    ...place,
    kind: 'truncated-record',
    expected,
    found: `${foundBytes} bytes before the end of the file`,
    advice: 'The file was cut short while it was written or copied: write or download it again.',
  });
}

/** The first line of a file that holds text, quoted, for the message when it is taken for records. */
async function textOf(handle: FileHandle): Promise<string | undefined> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(40), 0, 40, 0);
  const line = buffer.subarray(0, bytesRead).toString('latin1').split('\n')[0] ?? '';
  return /^[\t\x20-\x7e]{8,}$/.test(line) ? JSON.stringify(line) : undefined;
}

function hex(crc: number): string {
  return `0x${crc.toString(16).padStart(8, '0')}`;
}
