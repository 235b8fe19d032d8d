/** `prepare` on the toy genome of a folder. */
import { join } from 'node:path';
import {
  PREPARE_DEFAULTS,
  type PrepareOptions,
  type PreparePlan,
  type PrepareResult,
  planPrepare,
  runPrepare,
  type TrackSource,
} from '@cohesin/io';

export interface ToyPrepare {
  inToy(name: string): string;
  /** Of `NAME.bw`. */
  track(name: string, more?: Partial<TrackSource>): TrackSource;
  options(more?: Partial<PrepareOptions>): PrepareOptions;
  run(
    name: string,
    chosen: PrepareOptions,
    threads?: number,
  ): Promise<{ plan: PreparePlan; result: PrepareResult }>;
  /** What a plan says: its error, or its warnings, or `none`. */
  problems(more: Partial<PrepareOptions>): Promise<string>;
}

export function toyPrepare(folder: () => string): ToyPrepare {
  const inToy = (name: string): string => join(folder(), name);
  const track = (name: string, more: Partial<TrackSource> = {}): TrackSource => ({
    ...{ file: inToy(`${name}.bw`), identifier: name, description: name, statistic: 'mean', scale: 1 },
    ...more,
  });
  const options = (more: Partial<PrepareOptions> = {}): PrepareOptions => ({
    ...PREPARE_DEFAULTS,
    genome: inToy('genome.fa'),
    tracks: [track('a', { clip: 12 }), track('b', { statistic: 'sum_sqrt', scale: 0.5, clipSoft: 4 })],
    split: { kind: 'chromosomes', valid: ['chrII'], test: ['chrIII'] },
    ...{ sequenceLengthBp: 300, cropBp: 30, poolWidthBp: 16, strideTrainBp: 170, strideTestBp: 300 },
    ...more,
  });
  return {
    ...{ inToy, track, options },
    run: async (name, chosen, threads = 0) => {
      const plan = await planPrepare(chosen);
      try {
        return { plan, result: await runPrepare(inToy(name), plan, { threads }) };
      } finally {
        await plan.close();
      }
    },
    problems: async (more) =>
      await planPrepare(options(more)).then(
        async ({ close, warnings }) => {
          await close();
          return warnings.join('\n') || 'none';
        },
        (error: Error) => error.message,
      ),
  };
}
