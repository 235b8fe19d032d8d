export {
  type Checkpoint,
  type CheckpointInfo,
  hashState,
  hostTensors,
  loadCheckpoint,
  saveBestCheckpoint,
  saveCheckpoint,
  type Validations,
} from './checkpoint.ts';
export { type DeviceChoice, deviceCount, label } from './devices/choose.ts';
export { type MemoryHeap, type PhysicalDevice, physicalDevices } from './devices/vulkan.ts';
export {
  type Distributed,
  DistributedState,
  type DistributeOptions,
  distribute,
  type HostState,
} from './distribute.ts';
export { type Mesh, type MeshOptions, openMesh } from './mesh.ts';
export * from './schedule/index.ts';
