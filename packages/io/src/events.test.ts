import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openEventLog } from './events.ts';
import type { EventMessage } from './proto/messages.ts';
import { Event } from './proto/tensorflow.ts';
import { readRecords } from './tfrecord.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'events-'));
});
afterAll(() => rm(folder, { recursive: true }));

async function readEvents(path: string): Promise<EventMessage[]> {
  const events: EventMessage[] = [];
  for await (const { data } of readRecords(path, { compression: 'none' })) events.push(Event.decode(data));
  return events;
}

describe('event logs', () => {
  it('hold a version, then what was logged, at the time it was', async () => {
    const start = Date.now() / 1000;
    const log = await openEventLog(join(folder, 'run', 'train'));
    log.scalar('loss', 0.5, 0);
    log.scalar('loss', Number.NaN, 2 ** 40);
    log.text('config', '`batch: 4`', 1);
    await log.close();
    const [version, ...events] = await readEvents(log.path);
    expect(version?.fileVersion).toBe('brain.Event:2');
    expect(events.map(({ step }) => Number(step?.toString() ?? 0))).toEqual([0, 2 ** 40, 1]);
    expect(events.map(({ summary }) => summary?.value[0]?.tag)).toEqual(['loss', 'loss', 'config']);
    expect(events.map(({ summary }) => summary?.value[0]?.simpleValue)).toEqual([0.5, Number.NaN, null]);
    const text = events[2]?.summary?.value[0];
    expect(text?.metadata?.pluginData.pluginName).toBe('text');
    expect(new TextDecoder().decode(text?.tensor?.stringVal[0])).toBe('`batch: 4`');
    for (const { wallTime } of events) {
      expect(wallTime).toBeGreaterThanOrEqual(start);
      expect(wallTime).toBeLessThanOrEqual(Date.now() / 1000);
    }
  });

  it('can be read while they grow, after each flush', async () => {
    const log = await openEventLog(folder);
    expect((await readEvents(log.path)).length).toBe(1);
    for (let step = 0; step < 3; step++) log.scalar('loss', step, step);
    expect((await readEvents(log.path)).length).toBe(1);
    await Promise.all([log.flush(), log.flush()]);
    expect((await readEvents(log.path)).length).toBe(4);
    await log.close();
  });

  it('get a name each, which TensorBoard finds', async () => {
    const dir = join(folder, 'names');
    const logs = [await openEventLog(dir), await openEventLog(dir), await openEventLog(dir)];
    for (const log of logs) await log.close();
    const names = await readdir(dir);
    expect(names.length).toBe(3);
    for (const name of names) expect(name).toContain(hostname());
    for (const name of names) expect(name).toMatch(/^events\.out\.tfevents\.\d{10}\./);
  });

  it('say which folder cannot be made', async () => {
    await expect(openEventLog('/dev/null/run')).rejects.toThrow(
      /\/dev\/null\/run: ENOTDIR: a part of the path is a file/,
    );
  });
});
