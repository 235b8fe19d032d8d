/** Models of tracks: one number for each bin and track. */
import { predictStep, trainStep } from '@cohesin/core';
import { type Dataset, f16ToF32, type SequenceRecord } from '@cohesin/io';
import { type BuiltModel, checkData, lossOf } from '@cohesin/models';
import { codesInput, preparePrediction, prepareTraining, type TargetView, targetsInput } from './batch.ts';
import { turnOf } from './ensemble.ts';
import type { GeneComparison } from './genes.ts';
import { type Collector, labelCollector, type Rows, valueCollector } from './measures.ts';
import type { Comparison, Task } from './task.ts';

/** @throws when the sizes of model and data differ, with both sides. */
export function trackTask(
  { model, predict, config, train }: BuiltModel,
  dataset: Dataset,
  genome: string | undefined,
): Task {
  const { cropBins } = checkData(config, dataset);
  const { sequenceLengthBp, targets: tracks, outputShape } = config;
  const strandPair = Array.from(
    { length: tracks },
    (_, track) => config.strandPair?.[track] ?? dataset.targets[track]?.strandPair ?? track,
  );
  const isTriangle = config.triangle !== undefined;
  const view: TargetView = { tracks, strandPair, cropBins, outputShape, isTriangle, genome };
  const targetsOf = ({ targets }: SequenceRecord): Float32Array => {
    const values = targets.dtype === 'f16' ? f16ToF32(targets.data) : targets.data;
    return values.slice(cropBins * tracks, (dataset.targetLength - cropBins) * tracks);
  };
  return {
    genome,
    dataset,
    model,
    sequenceLengthBp,
    tracks,
    inputs: { codes: codesInput(sequenceLengthBp) },
    targets: { targets: targetsInput(dataset.targetLength, tracks) },
    augment: { ...config.augment, jitterBp: 0 },
    trainStep: (options) =>
      trainStep({ model, trained: model, loss: lossOf(train), prepare: prepareTraining(view), ...options }),
    predictStep: () => predictStep({ model: predict, trained: model, prepare: preparePrediction }),
    comparison: ({ ranks = false, genes } = {}) => {
      const isLabels = train.loss.startsWith('bce');
      const collector = isLabels ? labelCollector(tracks) : valueCollector(tracks, { ranks });
      const rows = isTriangle ? 'pairs of bins' : dataset.targetLength === 1 ? 'sequences' : 'positions';
      return trackComparison(collector, rows, targetsOf, genes);
    },
    targetsOf,
    averaging: {
      turn: turnOf(config, view),
      stated: config.ensemble ?? { reverseComplement: false, shiftsBp: [0] },
    },
  };
}

function trackComparison(
  collector: Collector,
  rows: Rows,
  targetsOf: Task['targetsOf'],
  genes: GeneComparison | undefined,
): Comparison {
  let sequences = 0;
  return {
    add: ({ prediction }, record) => {
      const target = targetsOf(record);
      collector.add(prediction!, target);
      genes?.add(prediction!, target);
      sequences++;
    },
    result: () => {
      const measures = collector.measures();
      const value = measures[0].tracks.mean;
      const ofGenes = genes === undefined ? {} : { genes: genes.metrics() };
      return { kind: 'tracks', value, better: 'higher', sequences, rows, measures, ...ofGenes };
    },
  };
}
