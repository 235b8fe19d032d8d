import { SCHEDULES, type StagesOptions } from '@cohesin/distributed';
import { type OptionSpec, type Options, UsageError } from './command-line.ts';

export const STAGE_OPTIONS: Readonly<Record<string, OptionSpec>> = {
  stages: {
    value: 'A,B,…',
    about:
      'cut the layers into stages, each on devices of its own: where they begin (trunk.0,trunk.3) or all they have (stem|tower,heads)',
  },
  'stage-devices': {
    value: 'N,M,…',
    about: 'devices of each stage, which share its leaves (default: as even as --devices divide)',
  },
  schedule: {
    value: SCHEDULES.join('|'),
    about: 'the order in which leaves go through the stages (default 1f1b)',
  },
};

/** @throws UsageError when options about stages are given without stages. */
export function readStages(options: Options): StagesOptions | undefined {
  const stages = options.text('stages')?.split(',');
  const devices = options.integers('stage-devices');
  const schedule = options.choice('schedule', SCHEDULES);
  if (stages !== undefined)
    return {
      stages,
      ...(devices === undefined ? {} : { devices }),
      ...(schedule === undefined ? {} : { schedule }),
    };
  const alone = ['stage-devices', 'schedule'].find((name) => options.text(name) !== undefined);
  if (alone === undefined) return undefined;
  throw new UsageError(`--${alone} is about stages of layers; say with --stages where they begin`);
}

/** Devices where `--devices` leaves it open: those of the stages, one for each by default. */
export function stageDevices({ stages, devices }: StagesOptions): number {
  return devices?.reduce((total, count) => total + count, 0) ?? stages.length;
}
