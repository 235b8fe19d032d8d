/** The schedule checker against model ranks, on more random schedules than a test has time for. */
import { compareWithModel, seeded } from '@cohesin/distributed/testing';
import { environment, publish, table } from './report.ts';

const SCHEDULES = 100_000;
const SEED = 20;

export function schedules(): void {
  const start = performance.now();
  const { valid, refused, accepted, wrong } = compareWithModel(SCHEDULES, seeded(SEED));
  const seconds = (performance.now() - start) / 1000;
  const rows = [
    ['made of moves that ranks can make', `${valid}`, `${valid - refused}`],
    ['mutated once or twice', `${SCHEDULES - valid}`, `${accepted - (valid - refused)}`],
  ];
  const text = [
    `${SCHEDULES} random schedules (seed ${SEED}; one to four stages of one to three ranks, one to five microbatches, one to three buffers a channel) are checked, then run on model ranks that take turns at random. Checker and model must agree on each: whether every rank comes to the end, with each value computed once from what it needs.`,
    table(['', 'schedules', 'accepted'], rows),
    `Disagreements: ${wrong.length}. ${seconds.toFixed(0)} s.`,
    ...wrong.slice(0, 10),
  ].join('\n\n');
  const where = environment({ device: 'none', description: 'schedules are checked without a device' });
  const data = { schedules: SCHEDULES, seed: SEED, valid, accepted, disagreements: wrong.length, seconds };
  publish({ name: 'schedules', title: 'Schedules, checked and run', environment: where, text, data });
  if (wrong.length > 0) throw new Error(`checker and model disagree on ${wrong.length} schedules`);
}
