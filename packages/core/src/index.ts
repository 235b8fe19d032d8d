export {
  type BuildOptions,
  type Built,
  type BuiltPipeline,
  type BuiltShares,
  build,
  buildShared,
  buildStages,
  type Compiled,
  type CompileOptions,
  compile,
  type InputSpec,
  initialState,
  notFinite,
  type Traceable,
} from './compile/compile.ts';
export {
  type ForwardTensor,
  type GatherWork,
  type HeldBytes,
  type KernelWork,
  mostHeld,
  type StepWork,
  stepWork,
} from './compile/work.ts';
export type { Counters, StepCounters } from './counters.ts';
export { type BufferRange, Device, type DeviceInfo, kernelTarget } from './device.ts';
export type { Frame } from './dispatcher.ts';
export {
  alone,
  type Exchange,
  type Gathering,
  type GatherPart,
  type Parcel,
  type PipelineExchange,
  type SubmitSums,
} from './exchange.ts';
export { Executor } from './executor.ts';
export { between } from './gathered.ts';
export { globPattern } from './glob.ts';
export { gradients } from './grad.ts';
export { decide, FIRST_Q, initialScales, type SumDecision } from './gradient-scale.ts';
export * from './host-tensor.ts';
export type { KernelBody, KernelTarget } from './kernel.ts';
export { type Product, productsOf } from './kernels/family.ts';
export {
  type KernelTable,
  KernelTableError,
  kernelTableHash,
  productClass,
  readKernelTable,
  sortedTable,
  writeKernelTable,
} from './kernels/kernel-table.ts';
export { productSizes } from './kernels/product-sizes.ts';
export {
  clearWinner,
  median,
  openTuner,
  type Tuned,
  type Tuner,
  tableOf,
  tune,
  worthTuning,
} from './kernels/tune.ts';
export { defaultTuneCache, openTuneCache, type TuneCache } from './kernels/tune-cache.ts';
export { literal } from './literal.ts';
export { memoryReport, momentBytes, momentsReport, programBytes, totalBytes } from './memory-report.ts';
export * as nn from './nn/index.ts';
export { comparePlaces, NotFiniteError, type Place } from './not-finite.ts';
export {
  defineOp,
  type MapSite,
  type Named,
  type Op,
  type OpCall,
  type Reference,
  type Sample,
} from './op.ts';
export * from './ops/arithmetic.ts';
export {
  type AttentionMaps,
  type AttentionOptions,
  type RelativeAttentionInputs,
  relativeAttention,
  relativeAttentionMaps,
} from './ops/attention.ts';
export { attentionPool1d } from './ops/attention-pool.ts';
export * from './ops/conv1d.ts';
export * from './ops/conv2d.ts';
export * from './ops/elementwise.ts';
export { layerNormalize, type RowNormOptions, rmsNormalize } from './ops/layer-norm.ts';
export { leafSum } from './ops/leaf-sum.ts';
export { logGamma, logGammaReference } from './ops/log-gamma.ts';
export { logAddExp, softCap } from './ops/logits.ts';
export * from './ops/matmul.ts';
export { affineNormalize, batchNormalize, foldMoments, moments } from './ops/normalize.ts';
export * from './ops/pair-map.ts';
export * from './ops/permute.ts';
export * from './ops/pool.ts';
export { type PositionWeights, positionWeights, weightPositions } from './ops/position-weight.ts';
export { dropout } from './ops/random.ts';
export { repeat, sum } from './ops/reduce.ts';
export { relativeShift } from './ops/relative-shift.ts';
export { type RotaryTables, rotary, rotaryTables } from './ops/rotary.ts';
export * from './ops/select.ts';
export * from './ops/sequence.ts';
export * from './ops/shape.ts';
export { type AxisOption, logSoftmax, logSumExp, softmax } from './ops/softmax.ts';
export { standardizeWeight } from './ops/standardize.ts';
export * from './ops/triangle.ts';
export * from './ops/upsample.ts';
export * from './optim/index.ts';
export {
  buffer,
  constant,
  type Initializer,
  input,
  ones,
  Parameter,
  parameter,
  scalar,
  zeros,
} from './parameter.ts';
export { installAdaptivePolling } from './polling.ts';
export {
  type Profile,
  type Profiled,
  type ProfileOptions,
  profile,
  profileReport,
  type StepTime,
} from './profile.ts';
export {
  addLeaves,
  allLeaves,
  type Combine,
  type HandOver,
  type Program,
  type ProgramInput,
  type ProgramOutput,
  type ProgramState,
  pieceCount,
  piecesOf,
  rounds,
  type Share,
} from './program.ts';
export { hashName, mix } from './random.ts';
export { explain, type Leftovers, removeLeftovers, replacePath, writeSynced } from './replace-file.ts';
export {
  decodeSafetensors,
  encodeSafetensors,
  readSafetensors,
  type Safetensors,
  writeSafetensors,
} from './safetensors.ts';
export { currentScope, type Phase, type Precision, withLayer, withScope } from './scope.ts';
export { type StageAction, StageExecutor, type StageWork, setsInFlight } from './stage-executor.ts';
export {
  type ActionKind,
  type Link,
  type LinkPiece,
  type LinkTensor,
  type PipelineProgram,
  StageError,
  type StageProgram,
} from './stage-program.ts';
export { StateStore } from './state.ts';
export { byteLength, type DType, type Spec, sameShape, shapeText, Tensor } from './tensor.ts';
export { assign } from './trace.ts';
export { type Example, predictStep, type TrainStepOptions, trainStep } from './train-step.ts';
export { isHalf, type Visit, type Visited } from './visit.ts';
export { wgsl } from './wgsl.ts';
