/** Our cases, alone or in turn with the same cases in other libraries, each in a process of its own. */
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { DeviceInfo } from '@cohesin/core';
import { CASES, type Case } from './cases.ts';
import { environment, median, previous, publish, ROOT, type Summary, summarize, table } from './report.ts';

const PEERS = `${ROOT}../shared/tools/peers`;
const CACHE = `${ROOT}node_modules/.cache/peers`;
const ROUNDS = 4; // with five runs each: 20 runs of a kernel, 80 steps of a training
const TIMEOUT_MS = 300_000;

/** A library to run a case in. */
export interface Contestant {
  readonly name: string;
  readonly file: string;
  readonly words: readonly string[];
  runs(one: Case): boolean;
}

export const OURS: Contestant = {
  name: 'cohesin',
  file: fileURLToPath(new URL('case.js', import.meta.url)),
  words: [],
  runs: () => true,
};

export const OTHERS: readonly Contestant[] = [
  { name: 'jax-js', file: 'peer_jaxjs.mjs', words: ['webgpu'], runs: () => true },
  { name: 'TensorFlow.js', file: 'peer_tfjs.mjs', words: ['webgpu'], runs: () => true },
  {
    name: 'onnxruntime',
    file: 'peer_ort.mjs',
    words: ['webgpu'],
    runs: ({ name }) => name !== 'conv_fwdbwd' && !name.startsWith('train_'), // it does not train
  },
];

/** What a process prints. */
export interface Line {
  /** From traced function to compiled kernels; libraries that compile as they run have none. */
  readonly prepareMs?: number;
  readonly firstMs: number;
  readonly ts: readonly number[];
  readonly digest: { readonly abs: number; readonly v: readonly number[] };
  readonly device?: DeviceInfo;
}

interface Result extends Summary {
  readonly firstMs: number;
  readonly abs: number;
}

type Results = Readonly<Record<string, Readonly<Record<string, Result>>>>;

/** Our cases alone. */
export function kernels(): void {
  race('kernels', 'Kernels and small training steps', [OURS]);
}

/** Our cases and the peers', in turn. Says so and stops where the peers' programs are not at hand. */
export function peers(): void {
  if (!installed('peers')) return;
  race('peers', 'The same work in other libraries on WebGPU', [OURS, ...OTHERS]);
}

/** Installs the peers outside the repository and its lock file; false, saying so, where their programs are missing. */
export function installed(benchmark: string): boolean {
  if (!existsSync(PEERS)) {
    console.log(
      `${benchmark}: skipped, the programs that run peers (shared/tools/peers) are not beside this checkout`,
    );
    return false;
  }
  mkdirSync(CACHE, { recursive: true });
  const files = readdirSync(PEERS).filter((name) => name.endsWith('.mjs') || name === 'package.json');
  for (const name of files) cpSync(`${PEERS}/${name}`, `${CACHE}/${name}`);
  if (existsSync(`${CACHE}/node_modules/@jax-js/jax`)) return true;
  const words = ['i', '--ignore-scripts', '--no-audit', '--no-fund'];
  const { status, stderr } = spawnSync('npm', words, { cwd: CACHE, encoding: 'utf8' });
  if (status !== 0) throw new Error(`peers: npm i failed in ${CACHE}: ${stderr}`);
  return true;
}

function race(name: string, title: string, contestants: readonly Contestant[]): void {
  const before = previous<Results>(name);
  const results: Record<string, Record<string, Result>> = {};
  const failures: string[] = [];
  let device: DeviceInfo | undefined;
  for (const one of CASES) {
    const lines = new Map<string, Line[]>(
      contestants.filter((who) => who.runs(one)).map((who) => [who.name, []]),
    );
    for (let round = 0; round < ROUNDS; round++) {
      for (const who of contestants.filter((each) => lines.has(each.name))) {
        const line = run(who, one);
        if (typeof line === 'string') {
          failures.push(`${who.name} ${one.name}: ${line}`);
          lines.delete(who.name);
        } else lines.get(who.name)!.push(line);
        if (typeof line !== 'string') device ??= line.device;
      }
    }
    results[one.name] = Object.fromEntries([...lines].map(([who, all]) => [who, result(all)]));
    console.log(caseTable(one, results[one.name]!, before?.[one.name]));
  }
  const tables = CASES.map((one) => caseTable(one, results[one.name]!, before?.[one.name]));
  const failed =
    failures.length === 0 ? [] : [`Did not run:\n\n${failures.map((text) => `- ${text}`).join('\n')}`];
  const text = [HOW, ...tables, ...failed].join('\n\n');
  publish({ name, title, environment: environment(device!), text, data: results });
}

const HOW = `Wall time of one run with a wait for its end, operands on the device. Processes take turns, ${ROUNDS} rounds. "Speed"
is our median over theirs: above 1 we are faster. "Sum" is how far Σ|result| lies from ours: the work is the same.
Training steps read the loss back in every step.`;

/** Runs a case in a process of its own. Gives what it printed, or why it printed nothing. */
export function run(
  { file, words }: Contestant,
  { name }: Case,
  variables: Readonly<Record<string, string>> = {},
): Line | string {
  const options = {
    cwd: existsSync(CACHE) ? CACHE : ROOT,
    env: { ...process.env, ...variables },
    encoding: 'utf8',
    timeout: TIMEOUT_MS,
  } as const;
  const { stdout, stderr, status, signal } = spawnSync(process.execPath, [file, name, ...words], options);
  const line = stdout.split('\n').find((text) => text.startsWith('@@'));
  if (line !== undefined) return JSON.parse(line.slice(2)) as Line;
  const [reason = ''] = stderr.split('\n').filter((text) => text !== '' && !text.startsWith('Warning'));
  return `exit ${signal ?? status}: ${reason.replaceAll(ROOT, '').slice(0, 200)}`;
}

function result(lines: readonly Line[]): Result {
  const last = lines.at(-1)!;
  return {
    ...summarize(lines.flatMap(({ ts }) => ts)),
    firstMs: median(lines.map(({ firstMs }) => firstMs)),
    abs: last.digest.abs,
  };
}

function caseTable(
  one: Case,
  results: Readonly<Record<string, Result>>,
  before?: Readonly<Record<string, Result>>,
): string {
  const ours = results[OURS.name];
  const work = one.flops ?? one.bytes;
  const rate = (ms: number): string => (work === undefined ? 1000 / ms : work / ms / 1e6).toFixed(1);
  const rows = Object.entries(results).map(([who, own]) => [
    who,
    own.medianMs.toFixed(1),
    own.bestMs.toFixed(1),
    own.p90Ms.toFixed(1),
    `${rate(own.medianMs)} (${rate(own.bestMs)})`,
    ours === undefined ? '' : (own.medianMs / ours.medianMs).toFixed(2),
    ours === undefined ? '' : Math.abs(own.abs / ours.abs - 1).toExponential(0),
    own.firstMs.toFixed(0),
    before?.[who] === undefined ? '' : before[who].medianMs.toFixed(1),
  ]);
  const unit = one.flops !== undefined ? 'GFLOP/s' : one.bytes !== undefined ? 'GB/s' : 'steps/s';
  const head = [
    one.name,
    'median ms',
    'best',
    'p90',
    `${unit} (best)`,
    'speed',
    'sum',
    'first call ms',
    'last time',
  ];
  return table(head, rows);
}
