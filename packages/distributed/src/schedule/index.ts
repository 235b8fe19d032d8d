export {
  type Action,
  type Compute,
  formatAction,
  isTransfer,
  type Pipeline,
  type Schedule,
  type Transfer,
  type Work,
} from './action.ts';
export { type Checked, checkSchedule } from './check.ts';
export { makeSchedule, SCHEDULES, type ScheduleName, type ScheduleOptions } from './generate.ts';
export { groupCount, rankCount, ranksOn, stageOfRanks, transfersAround } from './pipeline.ts';
export { type PrintOptions, printSchedule } from './print.ts';
export { type ScheduleCosts, type Span, timeSchedule, UNIT_COSTS } from './timing.ts';
export { ScheduleError } from './waits.ts';
