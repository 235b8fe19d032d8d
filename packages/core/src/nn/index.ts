/** Layers, initial values and losses, for use as `nn.…`. */
export * from '../ops/elementwise.ts';
export * from './attention.ts';
export * from './attention-pool.ts';
export * from './conv.ts';
export * from './conv2d.ts';
export * as init from './init.ts';
export * from './layer.ts';
export * from './layer-norm.ts';
export * from './linear.ts';
export * from './loss.ts';
export * from './multinomial-loss.ts';
export * from './norm.ts';
export * from './pool.ts';
export * from './positional.ts';
export * from './sequential.ts';
