export { type Block, type Blocks, modelBlocks, type PassCost } from './blocks.ts';
export { type Compared, type CompareOptions, comparePlans, type Refused } from './compare.ts';
export { ASSUMED_COSTS, type Costs, readCosts } from './costs.ts';
export { type MeasureOptions, measureCosts } from './measure.ts';
export { type Partition, type PartitionProblem, partition, type Stage } from './partition.ts';
export { type Placement, placementOf, planOf } from './placement.ts';
export { type Plan, type Prediction, predict, scheduleCosts } from './predict.ts';
export { type StageCost, type StageMemory, stageCost } from './stage.ts';
export { traceEvents } from './trace-events.ts';
