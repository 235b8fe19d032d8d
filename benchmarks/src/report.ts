/** Results as tables: on the terminal, as JSON and as a page, with everything needed to read them later. */
import { spawnSync } from 'node:child_process';
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, cpus, loadavg } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { DeviceInfo } from '@cohesin/core';

/** The repository. */
export const ROOT: string = fileURLToPath(new URL('../..', import.meta.url));

const RESULTS = `${ROOT}benchmarks/results/`;

export interface Environment {
  readonly date: string;
  readonly commit: string;
  readonly device: string;
  readonly driver: string;
  readonly cpu: string;
  readonly node: string;
  readonly webgpu: string;
  readonly load: string;
}

export function environment({
  device,
  description,
}: Pick<DeviceInfo, 'device' | 'description'>): Environment {
  const require = createRequire(import.meta.url);
  const { version } = require('webgpu/package.json') as { version: string };
  return {
    date: new Date().toISOString().slice(0, 16).replace('T', ' '),
    commit: commit(),
    device,
    driver: description,
    cpu: `${cpus()[0]?.model.trim() ?? 'unknown'}, ${availableParallelism()} cores`,
    node: process.version,
    webgpu: `Dawn of webgpu ${version}`,
    load: loadavg()
      .map((load) => load.toFixed(1))
      .join(' '),
  };
}

export function commit(): string {
  const git = (...words: string[]): string =>
    spawnSync('git', words, { cwd: ROOT, encoding: 'utf8' }).stdout.trim();
  const changed =
    git('status', '--porcelain', '--untracked-files=no', '--', 'packages', 'benchmarks/src') !== '';
  return `${git('rev-parse', '--short', 'HEAD')}${changed ? ' with changes' : ''}`;
}

/** Median, best and ninetieth percentile of times in ms. */
export interface Summary {
  readonly runs: number;
  readonly medianMs: number;
  readonly bestMs: number;
  readonly p90Ms: number;
}

export function summarize(times: readonly number[]): Summary {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (share: number): number =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!;
  return { runs: sorted.length, medianMs: median(sorted), bestMs: sorted[0]!, p90Ms: at(0.9) };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** A Markdown table. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map((_, i) => (i === 0 ? '---' : '---:'))), ...rows.map(line)].join('\n');
}

export interface Page {
  readonly name: string;
  readonly title: string;
  readonly environment: Environment;
  /** Markdown between the title and the description of the machine. */
  readonly text: string;
  readonly data: unknown;
}

/** Prints the page, writes it to `benchmarks/results` and adds its data as a line to the file beside it. */
export function publish({ name, title, environment: where, text, data }: Page): void {
  const at = Object.entries(where)
    .map(([key, value]) => `- ${key}: ${value}`)
    .join('\n');
  const page = `# ${title}\n\n${text}\n\n## Where and when\n\n${at}\n`;
  console.log(page);
  writeFileSync(`${RESULTS}${name}.md`, page);
  appendFileSync(`${RESULTS}${name}.jsonl`, `${JSON.stringify({ environment: where, data })}\n`);
}

/** The data that `publish` wrote under this name last. */
export function previous<T>(name: string): T | undefined {
  const path = `${RESULTS}${name}.jsonl`;
  if (!existsSync(path)) return undefined;
  const last = readFileSync(path, 'utf8').trim().split('\n').at(-1)!;
  return (JSON.parse(last) as { data: T }).data;
}
