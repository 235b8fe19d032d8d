export {
  type Checkpoint,
  type CheckpointInfo,
  checkpointPaths,
  hashRanks,
  hashState,
  hostTensors,
  loadCheckpoint,
  saveBestCheckpoint,
  saveCheckpoint,
  type Validations,
} from './checkpoint.ts';
export { dealLeaves } from './deal.ts';
export { alike, type DeviceChoice, deviceCount, label } from './devices/choose.ts';
export { type MemoryHeap, type PhysicalDevice, physicalDevices } from './devices/vulkan.ts';
export { type DistributeOptions, distribute } from './distribute.ts';
export {
  type ComparedSteps,
  compareWritten,
  type Difference,
  type Inspection,
  type Written,
} from './inspect.ts';
export { LEVELS, type Level } from './level.ts';
export { type Mesh, type MeshOptions, openMesh } from './mesh.ts';
export { pipelineOf, type StagesOptions } from './pipeline.ts';
export * from './plan/index.ts';
export type { Distributed, DistributedProgram, HostState, Inspected } from './runner.ts';
export * from './schedule/index.ts';
export { DistributedState } from './state.ts';
export { clock, type TraceSpan } from './timeline.ts';
export { recordedTimes, recordTimes, type TraceRow, traceFile } from './trace-file.ts';
