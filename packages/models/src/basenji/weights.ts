/** Basenji2's published weights are a Keras file; reference files have PyTorch names. */
export { builtFromGolden as basenjiFromGolden } from '../builder/golden.ts';
export { kerasWeights as basenjiWeights } from '../builder/weights.ts';
