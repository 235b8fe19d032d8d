/** Files: genomes and tracks, `prepare`, TFRecord data sets and weights, in and out, and TensorBoard event files. */

export { type BasenjiBatch, type BasenjiBatchOptions, basenjiBatches } from './batches.ts';
export { Scratch } from './chunk-queue.ts';
export type { Compression } from './compression.ts';
export { type ContactMap, type ContactMapOptions, openContacts } from './contacts/contact-map.ts';
export { type ContactTransform, type ContactWindow, contactTargets } from './contacts/contact-target.ts';
export { type OpenOptions, openDataset, openShards } from './dataset.ts';
export { TfRecordError, type TfRecordErrorKind, type TfRecordFault } from './errors.ts';
export { type EventLog, openEventLog } from './events.ts';
export { decodeExample, type Example, encodeExample, type Feature } from './example.ts';
export { f16ToF32, f32ToF16 } from './float16.ts';
export type { FragmentOptions, Strand } from './fragment-ends.ts';
export { openFragments } from './fragments.ts';
export { type SmoothOptions, smoothMap } from './gaussian.ts';
export { type Genome, openGenome, readPadded } from './genome.ts';
export { type InspectOptions, inspect } from './inspect/inspect.ts';
export type { HeatMap, Inspection } from './inspect/inspection.ts';
export { inspectionPage } from './inspect/page.ts';
export { type BedRow, type Interval, readBed } from './intervals.ts';
export type { Shuffle } from './order.ts';
export type { Division } from './prepare/contigs.ts';
export { describeDataset } from './prepare/described.ts';
export { type DirectOptions, type IntervalDataset, openIntervals } from './prepare/direct.ts';
export {
  type ContactOptions,
  PREPARE_DEFAULTS,
  type PrepareOptions,
  type TrackSource,
} from './prepare/options.ts';
export { type PreparePlan, planPrepare } from './prepare/plan.ts';
export { type PrepareProgress, type PrepareResult, runPrepare } from './prepare/prepare.ts';
export type { Provenance } from './prepare/provenance.ts';
export {
  type BinnedTargets,
  binTargets,
  SUM_STATISTICS,
  type SumStatistic,
  type TrackTransform,
  type WindowTransform,
} from './prepare/targets.ts';
export { readTrackTable, toStatistic } from './prepare/track-table.ts';
export { untransformTargets } from './prepare/untransform.ts';

export {
  type DecodeRecordOptions,
  decodeRecord,
  type EncodeRecordOptions,
  encodeRecord,
  type RecordMemory,
  type RecordPlace,
  type RecordShape,
  type SequenceRecord,
  type Targets,
} from './record.ts';
export { type WriteRecordsOptions, writeRecords } from './record-writer.ts';
export type { BatchOptions, Dataset, RecordBatch, ShardSet, Split } from './shard-set.ts';
export type { StreamedRecord, StreamOptions, StreamPosition } from './shards.ts';
export type { TargetTrack } from './targets-table.ts';
export { type FramedRecord, frameRecord, type ReadRecordsOptions, readRecords } from './tfrecord.ts';
export { openBigWig, type Track } from './track.ts';
export { readWeights, type WeightFile, type WeightFormat, writeWeights } from './weights/weight-file.ts';
export { type DatasetExample, type WriteDatasetOptions, writeDataset } from './write-dataset.ts';
