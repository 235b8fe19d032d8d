/** Models of the BPNet family: a profile at base resolution, and how many reads it has. */
import {
  augmentSequence,
  augmentTargets,
  buffer,
  oneHot,
  predictStep,
  type Tensor,
  trainStep,
} from '@cohesin/core';
import { type Dataset, f16ToF32, type SequenceRecord } from '@cohesin/io';
import {
  type BuiltProfileModel,
  median,
  type ProfileConfig,
  type ProfileData,
  ProfileMeasure,
  profileModel,
} from '@cohesin/models';
import { codesInput, type StepInput } from './batch.ts';
import type { Comparison, Task } from './task.ts';

/** The columns of a data set's tracks: those that are predicted, and control tracks, whose `role` in targets.txt is `control`. */
interface Columns {
  readonly all: number;
  readonly targets: readonly number[];
  readonly controls: readonly number[];
}

function columnsOf({ numTargets, targets }: Dataset): Columns {
  const all = Array.from({ length: numTargets }, (_, i) => i);
  const isControl = (column: number): boolean => targets[column]?.columns.role === 'control';
  return {
    all: numTargets,
    targets: all.filter((column) => !isControl(column)),
    controls: all.filter(isControl),
  };
}

/**
 * The model that fits a data set: its tracks, and unless it is stated the weight of counts, a tenth of the median reads of
 * a training window, at least 1, as ChromBPNet sets it. Reads all training sequences for that.
 */
export async function fittedModel(params: unknown, dataset: Dataset): Promise<BuiltProfileModel> {
  const columns = columnsOf(dataset);
  const data: ProfileData = {
    identifiers: columns.targets.map((column) => dataset.targets[column]?.identifier ?? `track${column}`),
    controls: columns.controls.length,
    strandPair: columns.targets.map((column) => {
      const pair = dataset.targets[column]?.strandPair;
      const place = pair === undefined ? -1 : columns.targets.indexOf(pair);
      return place < 0 ? undefined : place;
    }),
  };
  const built = profileModel(params, data);
  if (built.config.countWeight !== undefined) return built;
  checkWindows(built.config, dataset, columns);
  const reads: number[] = [];
  const rows = targetRows(built.config, columns);
  for await (const { record } of dataset.stream('train'))
    reads.push(rows(record, middle(record, built.config)).reduce((a, b) => a + b, 0));
  const weight = Math.max(1, median(reads) / 10);
  return profileModel({ ...built.params, model: { ...built.params.model, count_weight: weight } }, data);
}

/** @throws when the model's window does not fit the data's, with both sides. */
export function profileTask(
  built: BuiltProfileModel,
  dataset: Dataset,
  { withoutBias = false, negatives }: { withoutBias?: boolean; negatives?: Task['negatives'] },
): Task {
  const { model, config, loss, frozen } = built;
  const columns = columnsOf(dataset);
  const jitterBp = Math.min(config.augment.jitterBp, checkWindows(config, dataset, columns));
  if (negatives) checkWindows(config, negatives.dataset, columns);
  if (withoutBias && built.withoutBias === undefined)
    throw new Error('--without-bias is for chrombpnet; this model has no bias model inside');
  const { sequenceLengthBp, tracks, controls } = config;
  const rows = targetRows(config, columns);
  const partners = (name: string, pair: readonly number[]): Tensor =>
    buffer([pair.length], { name, init: () => Float32Array.from(pair) });
  const pairs = partners('data/strand_pair', config.strandPair);
  const controlPairs = partners('data/control_pair', config.controlPair);
  const targetsOf = (record: SequenceRecord): Float32Array => rows(record, middle(record, config));
  const forward = withoutBias ? built.withoutBias! : model;
  return {
    genome: undefined,
    dataset,
    ...(negatives && { negatives }),
    model,
    sequenceLengthBp,
    tracks,
    inputs: {
      codes: codesInput(sequenceLengthBp),
      ...(controls > 0 && { control: controlInput(config, columns) }),
    },
    targets: {
      targets: {
        shape: [config.targetLength, tracks],
        dtype: 'f32',
        fill: (values, record, fromBp) => (values as Float32Array).set(rows(record, fromBp)),
      },
    },
    augment: { reverseComplement: config.augment.reverseComplement, shiftBp: 0, jitterBp },
    trainStep: ({ frozen: more, ...options }) =>
      trainStep({
        model,
        trained: model,
        frozen: [...frozen, ...more],
        loss,
        prepare: ({ codes, control, targets, augment }) => ({
          x: {
            x: augmentSequence(codes!, augment!),
            control: control && augmentTargets(control, augment!, controlPairs),
          },
          y: augmentTargets(targets!, augment!, pairs),
        }),
        ...options,
      }),
    predictStep: () =>
      predictStep({
        model: forward,
        trained: model,
        prepare: ({ codes, control }) => ({ x: { x: oneHot(codes!), control }, y: codes! }),
      }),
    comparison: () => profileComparison(config, targetsOf),
    targetsOf,
  };
}

const middle = ({ sequence }: SequenceRecord, { sequenceLengthBp }: ProfileConfig): number =>
  (sequence.length - sequenceLengthBp) / 2;

/** How far windows may lie from the middle of these records. @throws when even that in the middle does not fit. */
function checkWindows(
  { sequenceLengthBp, targetLength, tracks, controls, controlReachBp }: ProfileConfig,
  { dir, sequenceLengthBp: lengthBp, cropBp, poolWidthBp, numTargets }: Dataset,
  columns: Columns,
): number {
  const margin = (lengthBp - sequenceLengthBp) / 2;
  const reach = controls > 0 ? controlReachBp : 0;
  const free = (lengthBp - targetLength) / 2 - reach - cropBp;
  const faults = [
    poolWidthBp === 1
      ? ''
      : `bins of ${poolWidthBp} bp; a profile has one position a bp: prepare with --bin 1`,
    numTargets === columns.all && columns.targets.length === tracks && columns.controls.length === controls
      ? ''
      : `${numTargets - columns.controls.length} tracks and ${columns.controls.length} control tracks (role control in targets.txt); the model has ${tracks} and ${controls}`,
    margin >= 0 && Number.isInteger(margin)
      ? ''
      : `sequences of ${lengthBp} bp; the model reads ${sequenceLengthBp} bp, and what is over is jitter: prepare with --length ${sequenceLengthBp} or an even number more`,
    free >= 0
      ? ''
      : `no targets in the outer ${cropBp} bp, but the model${reach > 0 ? `, with the ${reach} bp around its profile at which it reads control tracks,` : ''} needs those from ${cropBp + free} bp on: prepare with --crop ${Math.max(0, cropBp + free)}`,
  ].filter((fault) => fault !== '');
  if (faults.length > 0) throw new Error(`${dir} does not fit the model:\n  ${faults.join('\n  ')}`);
  return Math.min(margin, free);
}

type Rows = (record: SequenceRecord, fromBp: number) => Float32Array;

/** Some columns of a record's stored rows, as f32. */
function columnsAt(
  { sequence, targets }: SequenceRecord,
  { all }: Columns,
  chosen: readonly number[],
  values: Float32Array,
  { fromBp, rows }: { fromBp: number; rows: number },
): void {
  const stored = targets.dtype === 'f16' ? f16ToF32(targets.data) : targets.data;
  const storedRows = stored.length / all;
  const first = fromBp - (sequence.length - storedRows) / 2;
  for (let row = Math.max(0, -first); row < rows && first + row < storedRows; row++)
    for (const [i, column] of chosen.entries())
      values[row * chosen.length + i] = stored[(first + row) * all + column]!;
}

/** Reads at the positions that are predicted of the window that begins at `fromBp`, [targetLength, tracks]. */
function targetRows({ sequenceLengthBp, targetLength, tracks }: ProfileConfig, columns: Columns): Rows {
  const trimming = (sequenceLengthBp - targetLength) / 2;
  return (record, fromBp) => {
    const values = new Float32Array(targetLength * tracks);
    const place = { fromBp: fromBp + trimming, rows: targetLength };
    columnsAt(record, columns, columns.targets, values, place);
    return values;
  };
}

/** Control reads over the window, 0 where none are stored: no further than the model looks. */
function controlInput({ sequenceLengthBp, controls }: ProfileConfig, columns: Columns): StepInput {
  return {
    shape: [sequenceLengthBp, controls],
    dtype: 'f32',
    fill: (values, record, fromBp) =>
      columnsAt(record, columns, columns.controls, values as Float32Array, {
        fromBp,
        rows: sequenceLengthBp,
      }),
  };
}

function profileComparison(
  { tracks, groups, countWeight = 1 }: ProfileConfig,
  targetsOf: Task['targetsOf'],
): Comparison {
  const measure = new ProfileMeasure({ tracks, groups, countWeight });
  return {
    add: ({ logits, logCounts }, record) =>
      measure.add({ logits: logits!, logCounts: logCounts! }, targetsOf(record)),
    result: () => {
      const profiles = measure.result();
      const { loss, sequences } = profiles;
      return { kind: 'profiles', value: loss, better: 'lower', sequences, profiles };
    },
  };
}
