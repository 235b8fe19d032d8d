/** Runs of the built command, whose events are kept so that what is finished is not run again. */
import { spawnSync } from 'node:child_process';
import {
  appendFileSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { type Environment, environment, ROOT } from './report.ts';

/** A line of `--json`. */
export type Event = Readonly<Record<string, unknown>>;

/** Where runs and their logs are. */
export const RUNS: string = join(ROOT, 'runs');

/**
 * `cohesin ARGS --json`: its events, and last `{ event: 'processor time', seconds }` of all its threads. They are kept in
 * `log`, and read from there when the command has run to its end before.
 *
 * @throws when the command fails; it has then said why.
 */
export function cohesin(args: readonly string[], log: string): readonly Event[] {
  if (!existsSync(log)) {
    console.log(`cohesin ${args.join(' ')}`);
    mkdirSync(dirname(log), { recursive: true });
    const aside = `${log}.part`;
    const file = openSync(aside, 'w');
    const before = childSeconds();
    const bin = join(ROOT, 'packages/cli/bin/cohesin.js');
    const { status } = spawnSync(process.execPath, [bin, ...args, '--json'], {
      stdio: ['ignore', file, 'inherit'],
    });
    closeSync(file);
    if (status !== 0) throw new Error(`cohesin ${args[0]} ended with exit code ${status}`);
    const seconds = childSeconds() - before;
    appendFileSync(aside, `${JSON.stringify({ event: 'processor time', seconds })}\n`);
    renameSync(aside, log);
  }
  const lines = readFileSync(log, 'utf8').trim().split('\n');
  return lines.filter((line) => line.startsWith('{')).map((line) => JSON.parse(line) as Event);
}

/** The events of one kind. */
export const eventsOf = (events: readonly Event[], kind: string): readonly Event[] =>
  events.filter(({ event }) => event === kind);

/** Processor time of a run, in minutes. */
export const minutesOf = (events: readonly Event[]): number =>
  (eventsOf(events, 'processor time')[0]!.seconds as number) / 60;

/** The machine, as `cohesin devices` has it. */
export function commandEnvironment(log: string): Environment {
  const [info] = cohesin(['devices'], log);
  return environment({ device: String(info!.device), description: String(info!.description) });
}

const TICKS_PER_SECOND = 100; // USER_HZ of Linux

/** Processor time of all processes that have been waited for, by /proc/self/stat: cutime and cstime. */
function childSeconds(): number {
  const fields = readFileSync('/proc/self/stat', 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  return (Number(fields[13]) + Number(fields[14])) / TICKS_PER_SECOND; // 16 and 17, counted from 1 with pid and name
}
