import { nn, sgd, trainStep } from '@cohesin/core';
import { afterAll, expect, test } from 'vitest';
import { type DistributeOptions, distribute } from './distribute.ts';
import { meshPool } from './mesh-pool.ts';
import { pipelineOf } from './pipeline.ts';
import { formatAction, makeSchedule } from './schedule/index.ts';
import { recordedTimes, recordTimes, type TraceRow, traceFile } from './trace-file.ts';

const meshes = meshPool();
afterAll(meshes.close);

const SEQUENCES = 4;
const x = [SEQUENCES, 64, 4];
const y = [SEQUENCES, 64, 3];
const values = (shape: readonly number[]): Float32Array =>
  Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => Math.abs(Math.sin(i * 12.9898)));

const step = trainStep({
  model: nn.sequential({
    stem: nn.conv1d({ inputs: 4, outputs: 6, size: 5, padding: 'same' }),
    norm: nn.batchNorm({ channels: 6 }),
    head: nn.linear({ inputs: 6, outputs: 3 }),
    rate: nn.softplus,
  }),
  loss: nn.poissonLoss,
  optimizer: sgd({ learningRate: 1e-3 }),
});

/** What each rank did in the second and third of four steps. */
async function recorded(
  devices: number,
  options: Partial<Omit<DistributeOptions, 'mesh' | 'inputs'>>,
): Promise<TraceRow[]> {
  const mesh = await meshes.of(devices);
  const run = await distribute(step, { mesh, inputs: { x, y }, ...options });
  const batch = { x: values(x), y: values(y) };
  await run(batch);
  await recordTimes(mesh);
  await run(batch);
  await run(batch);
  const rows = await recordedTimes(mesh);
  await run(batch);
  await run.close();
  expect((await recordedTimes(mesh)).flatMap(({ spans }) => spans)).toEqual([]);
  return rows;
}

interface Event {
  readonly ph: string;
  readonly name: string;
  readonly pid: number;
  readonly ts: number;
  readonly dur: number;
  readonly args: Readonly<Record<string, unknown>>;
}

/** The events of each process of a trace. */
function processes(rows: readonly TraceRow[]): Event[][] {
  const { traceEvents } = JSON.parse(traceFile(rows, {})) as { traceEvents: Event[] };
  const spans = traceEvents.filter(({ ph }) => ph === 'X');
  return rows.map((_, index) => spans.filter(({ pid }) => pid === index + 1));
}

/** Events that lie in no other but a step's; throws where two overlap without one holding the other. */
function actions(events: readonly Event[]): Event[] {
  const open: Event[] = [];
  const end = ({ ts, dur }: Event): number => ts + dur;
  return events.filter((event) => {
    while (open.length > 0 && end(open.at(-1)!) <= event.ts + 1e-6) open.pop();
    if (open.length > 0) expect(end(event)).toBeLessThanOrEqual(end(open.at(-1)!) + 1e-6);
    open.push(event);
    return open.length === 2;
  });
}

test('stages record every action of the schedule in order, once a step', async () => {
  const pipeline = { stages: ['stem', 'head'], devices: [2, 1], schedule: 'zero-bubble' } as const;
  const rows = await recorded(3, { leaves: SEQUENCES, pipeline });
  const cut = { leaves: SEQUENCES, leavesPerSequence: 1 };
  const schedule = makeSchedule('zero-bubble', pipelineOf(pipeline, 3, cut), SEQUENCES);
  for (const [rank, events] of processes(rows).entries()) {
    const names = actions(events).map(({ name }) => name);
    const planned = schedule.actions[rank]!.map(formatAction);
    const isSend = (name: string): boolean => name.startsWith('send ');
    const twice = (filter: (name: string) => boolean): string[] => [...planned, ...planned].filter(filter);
    expect(names.filter((name) => /^(\d|receive)/.test(name))).toEqual(twice((name) => !isSend(name)));
    expect(events.map(({ name }) => name).filter(isSend)).toEqual(twice(isSend)); // while the next action is computed
    expect(events.filter(({ name }) => /^step/.test(name)).map(({ name }) => name)).toEqual([
      'step 1',
      'step 2',
    ]);
    expect(names).toEqual(expect.arrayContaining(['uploading inputs', 'updating', 'reading outputs']));
    const bytes = events.filter(({ name }) => /^(send|receive)/.test(name)).map(({ args }) => args.bytes);
    expect(new Set(bytes)).toEqual(new Set([64 * 6 * 4]));
  }
});

test('ranks that share a batch record exchanges with their bytes, and waits inside of them', async () => {
  const rows = await recorded(2, { leavesPerSequence: 4 });
  const all = processes(rows);
  for (const events of all) {
    const names = actions(events).map(({ name }) => name);
    expect(names[0]).toBe('uploading inputs');
    expect(names.filter((name) => name === 'updating')).toHaveLength(2);
    expect(names.at(-1)).toBe('reading outputs');
    const exchanges = events.filter(({ name }) => /^(combining|summing)/.test(name));
    expect(exchanges.length).toBeGreaterThan(2 * SEQUENCES);
    for (const { args } of exchanges) expect(args.bytes).toBeGreaterThan(0);
  }
  expect(all.flat().filter(({ name }) => name === 'wait').length).toBeGreaterThan(0);
});
