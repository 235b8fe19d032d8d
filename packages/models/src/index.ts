export * from './akita/model.ts';
export * from './akita/weights.ts';
export * from './basenji/model.ts';
export * from './basenji/weights.ts';
export {
  type Basenji1,
  type Basenji1Layer,
  type Basenji1Options,
  basenji1,
} from './basenji1/model.ts';
export { basenji1Weights } from './basenji1/weights.ts';
export * from './basset/model.ts';
export * from './basset/weights.ts';
export * from './borzoi/model.ts';
export {
  type BuiltProfileModel,
  isProfileModel,
  PROFILE_MODELS,
  type ProfileConfig,
  type ProfileData,
  profileModel,
} from './bpnet/built.ts';
export {
  type Bpnet,
  type BpnetInputs,
  type BpnetOptions,
  type BpnetOutputs,
  bpnet,
  unpaddedTrimming,
} from './bpnet/model.ts';
export * from './bpnet/original.ts';
export { bpnetKerasWeights, bpnetTorchWeights, originalBpnetWeights } from './bpnet/weights.ts';
export { type Fields, fields } from './builder/fields.ts';
export {
  type BuilderOptions,
  type BuiltModel,
  checkData,
  type DataSizes,
  type Ensemble,
  type JointModel,
  type ModelConfig,
  modelFromParams,
} from './builder/model.ts';
export { builtPlan, type ModelPlan, type NormGroup } from './builder/plan.ts';
export type { ActivationName, Gelu } from './builder/shared.ts';
export { lossOf, optimizerOf, type TrainConfig } from './builder/training.ts';
export { kerasWeights, torchWeights } from './builder/weights.ts';
export * from './chrombpnet/model.ts';
export { chrombpnetKerasWeights } from './chrombpnet/weights.ts';
export { isEnformer } from './enformer/joint.ts';
export * from './enformer/model.ts';
export { enformerSonnetWeights } from './enformer/sonnet.ts';
export { enformerTorchWeights, enformerWeights } from './enformer/weights.ts';
export {
  type BinPlace,
  type Gene,
  type GeneCollector,
  type GeneMetrics,
  geneCollector,
} from './gene-metrics.ts';
export { fromGolden } from './golden.ts';
export { type Convention, type GoldenCase, goldenInputs, type Tensors } from './golden-case.ts';
export { jointModels } from './joint.ts';
export { type KmerFeatures, type KmerOptions, kmerFeatures, type SparseCounts } from './kmer/features.ts';
export type { LinearModel } from './kmer/linear-model.ts';
export { type LogisticModel, type LogisticRows, logisticRows } from './kmer/logistic.ts';
export { type RidgeSums, ridgeSums } from './kmer/ridge.ts';
export {
  type LayerWeights,
  layerWeights,
  loadWeights,
  ownWeights,
  type Published,
  type PublishedWeights,
  saveWeights,
} from './load-weights.ts';
export * from './metrics.ts';
export * from './model.ts';
export { modelPlan } from './plan.ts';
export {
  type GroupCounts,
  jensenShannon,
  median,
  ProfileMeasure,
  type ProfileMetrics,
  type ProfilePrediction,
  type TrackProfile,
} from './profile-metrics.ts';
export {
  type PublishedName,
  type WeightEntry,
  type WeightMap,
  type WeightMapOptions,
  weightMap,
} from './weight-map.ts';
