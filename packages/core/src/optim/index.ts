/** Optimizers, learning-rate schedules, clipping. */
export * from './adam.ts';
export * from './learning-rate.ts';
export { clipAdaptive, clipGlobalNorm, clipPerVariable, type GradientTransform } from './norms.ts';
export type { Optimizer, OptimizerOptions } from './optimizer.ts';
export { afterValidation, type Plateau, RATE_FACTOR } from './plateau.ts';
export * from './rmsprop.ts';
export * from './sgd.ts';
