export * from './host-tensor.ts';
export type { KernelBody } from './kernel.ts';
export { wgsl } from './wgsl.ts';
