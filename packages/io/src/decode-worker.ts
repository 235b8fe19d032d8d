/** A thread that decodes shards: one request, one reply; records go into shared memory. */
import { parentPort, workerData } from 'node:worker_threads';
import { TfRecordError, type TfRecordFault } from './errors.ts';
import { type DecodedRecord, type DecodeOptions, type DecodeRequest, ShardDecoder } from './shard-decoder.ts';

/** A record to decode, or a file whose frames to count. */
export type WorkerRequest = { readonly id: number } & (
  | { readonly kind: 'decode'; readonly request: DecodeRequest }
  | { readonly kind: 'count'; readonly file: string }
);

export type WorkerReply = { readonly id: number } & (
  | { readonly value: DecodedRecord | number }
  | { readonly message: string; readonly fault?: TfRecordFault }
);

const decoder = new ShardDecoder(workerData as DecodeOptions);

parentPort!.on('message', (request: WorkerRequest) => {
  const work = request.kind === 'count' ? decoder.count(request.file) : decoder.decode(request.request);
  work.then(
    (value) => parentPort!.postMessage({ id: request.id, value } satisfies WorkerReply),
    (error) => parentPort!.postMessage(failure(request.id, error)),
  );
});

function failure(id: number, error: unknown): WorkerReply {
  const message = error instanceof Error ? error.message : String(error);
  return error instanceof TfRecordError ? { id, message, fault: { ...error } } : { id, message };
}
