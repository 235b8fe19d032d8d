/** Akita's published weights are a Keras file; reference files have PyTorch names, and dropout off. */
export { kerasWeights as akitaWeights } from '../builder/weights.ts';
