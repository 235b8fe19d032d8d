/** Basenji2's published weights are a Keras file; reference files have PyTorch names. */
export { builtFromGolden as basenjiFromGolden, kerasWeights as basenjiWeights } from '../builder/weights.ts';
