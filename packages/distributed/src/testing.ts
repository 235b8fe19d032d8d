/** What tests of schedules and of several devices are made of. */
export { type VectorMemory, vectorMemory, wideAdder } from './add-wide.ts';
export { type MeshPool, meshPool } from './mesh-pool.ts';
export * from './schedule/testing.ts';
