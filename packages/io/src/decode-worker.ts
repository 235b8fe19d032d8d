/** A thread that reads and decodes shards: one request, one reply, records moved and not copied. */
import { parentPort, workerData } from 'node:worker_threads';
import { TfRecordError, type TfRecordFault } from './errors.ts';
import { decodeRecord, type RecordShape, type SequenceRecord } from './record.ts';
import { type FramedRecord, readRecords } from './tfrecord.ts';

/** The next record of a shard, opened by its first request; the end of its use; or how many frames a file has. */
export type DecodeRequest =
  | { readonly id: number; readonly kind: 'next' | 'count'; readonly file: string }
  | { readonly id: number; readonly kind: 'close'; readonly file: string };

/** `value`: a record or undefined at the end of the shard, or a count. */
export type DecodeReply =
  | { readonly id: number; readonly value: SequenceRecord | number | undefined }
  | { readonly id: number; readonly message: string; readonly fault?: TfRecordFault };

export interface DecodeWorkerData {
  readonly shape: RecordShape;
  readonly allowNonFinite: boolean;
}

const { shape, allowNonFinite } = workerData as DecodeWorkerData;
const cursors = new Map<string, AsyncGenerator<FramedRecord, void, undefined>>();

parentPort!.on('message', (request: DecodeRequest) => {
  answer(request).then(
    (value) => parentPort!.postMessage({ id: request.id, value } satisfies DecodeReply, moved(value)),
    (error) => parentPort!.postMessage(failure(request.id, error)),
  );
});

async function answer({ kind, file }: DecodeRequest): Promise<SequenceRecord | number | undefined> {
  switch (kind) {
    case 'next':
      return await next(file);
    case 'count': {
      let count = 0;
      for await (const _ of readRecords(file)) count++;
      return count;
    }
    case 'close':
      await cursors.get(file)?.return();
      cursors.delete(file);
      return undefined;
  }
}

async function next(file: string): Promise<SequenceRecord | undefined> {
  const cursor = cursors.get(file) ?? readRecords(file);
  cursors.set(file, cursor);
  const { value, done } = await cursor.next();
  if (done) return undefined;
  const { index, offset, data } = value;
  return decodeRecord(data, shape, { file, recordIndex: index, offset }, { allowNonFinite });
}

function moved(value: SequenceRecord | number | undefined): ArrayBuffer[] {
  if (typeof value !== 'object') return [];
  return [value.sequence.buffer as ArrayBuffer, value.targets.data.buffer as ArrayBuffer];
}

function failure(id: number, error: unknown): DecodeReply {
  const message = error instanceof Error ? error.message : String(error);
  return error instanceof TfRecordError ? { id, message, fault: { ...error } } : { id, message };
}
