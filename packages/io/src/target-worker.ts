/** A thread that reads and bins tracks for `prepare`. */
import { parentPort, workerData } from 'node:worker_threads';
import { LocalTargets, type TargetInputs, type TrackTargets } from './prepare/target-reader.ts';
import type { TargetJob } from './prepare/target-source.ts';

export interface TargetRequest extends TargetJob {
  readonly id: number;
}

export type TargetReply =
  | { readonly id: number; readonly targets: readonly TrackTargets[] }
  | { readonly id: number; readonly message: string };

const reader = new LocalTargets(workerData as TargetInputs);

// One request at a time: the main thread sends the next when it has the answer.
parentPort!.on('message', ({ id, ...job }: TargetRequest) => {
  reader.read(job).then(
    (targets) => {
      const moved = targets.map(({ bits }) => bits.buffer as ArrayBuffer);
      parentPort!.postMessage({ id, targets } satisfies TargetReply, moved);
    },
    (error: unknown) => {
      const message = error instanceof Error ? error.message : String(error);
      parentPort!.postMessage({ id, message } satisfies TargetReply);
    },
  );
});
