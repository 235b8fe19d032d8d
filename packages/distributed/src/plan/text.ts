import type { Plan } from './predict.ts';

/** Devices of each stage: `4+2`, or `2×4` for two groups of four. */
export function devicesText({ stages, within, replicas = 1 }: Plan): string {
  const ofStage = (devices: number): string => {
    const groups = Math.min(replicas, devices);
    return within === 'data' || groups === 1 ? `${devices}` : `${groups}×${devices / groups}`;
  };
  return stages.map(({ devices }) => ofStage(devices)).join('+');
}

/** How a sequence of so many leaves goes through the model: `whole`, or `8 parts, 2 at once`. */
export function sequencesText({ within, sideBySide = 1 }: Plan, leaves: number): string {
  if (leaves === 1) return 'whole';
  const together = sideBySide > 1 ? `, ${sideBySide} at once` : '';
  return within === 'sequence' ? `${leaves} parts${together}` : `whole, ${leaves} parts`;
}
