/** Reads damaged files in a child process, and says what came of each. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Format } from './formats.ts';
import { KINDS, type Kind, mutate } from './mutate.ts';

/** `error`: names the file. `same`: the values of the sound file. `other`: other values, in a format without a checksum. */
export const OUTCOMES = ['error', 'same', 'other'] as const;
export const FAULTS = ['unclear error', 'silent change', 'crash', 'hang', 'over-allocation'] as const;
export type Outcome = (typeof OUTCOMES)[number] | (typeof FAULTS)[number];

export interface Trial {
  readonly format: string;
  readonly kind: Kind;
  readonly index: number;
  readonly outcome: Outcome;
  readonly detail: string;
}

interface Answer {
  readonly hash?: string;
  readonly error?: string;
  readonly kind?: string;
  readonly largest: number;
}

const DEADLINE_MS = 20_000;
const PROGRAM = fileURLToPath(new URL('read.mjs', import.meta.url));

/** `count` mutations of the file of one format, the kinds in turn. */
export async function tryFormat(
  reader: Reader,
  format: Format,
  count: number,
  onTrial: (trial: Trial) => void,
): Promise<void> {
  const sound = readFileSync(format.file);
  const expected = await reader.read(format);
  if (typeof expected === 'string' || expected.hash === undefined)
    throw new Error(`${format.name}: the sound file: ${JSON.stringify(expected)}`);
  for (let i = 0; i < count; i++) {
    const kind = KINDS[i % KINDS.length]!;
    const index = Math.floor(i / KINDS.length);
    const damaged = mutate(sound, kind, index);
    writeFileSync(format.file, damaged);
    const guarded = format.guarded && !format.soundCuts?.includes(damaged.length);
    const answer = await reader.read(format);
    onTrial({ format: format.name, kind, index, ...judge({ ...format, guarded }, expected.hash, answer) });
  }
  writeFileSync(format.file, sound);
}

function judge(
  { file, open, guarded }: Format,
  expected: string,
  answer: Answer | 'crash' | 'hang',
): Pick<Trial, 'outcome' | 'detail'> {
  if (typeof answer === 'string') return { outcome: answer, detail: '' };
  const { hash, error, kind, largest } = answer;
  if (largest > 0) return { outcome: 'over-allocation', detail: `${largest} bytes; ${error ?? 'read'}` };
  if (error !== undefined) {
    const named = [file, open ?? file].some((path) => error.includes(basename(path)));
    const clear = named && !['TypeError', 'RangeError', 'ReferenceError'].includes(kind!);
    return { outcome: clear ? 'error' : 'unclear error', detail: `${kind}: ${error}` };
  }
  if (hash === expected) return { outcome: 'same', detail: '' };
  return { outcome: guarded ? 'silent change' : 'other', detail: '' };
}

/** The child, started again after it ended. */
export class Reader {
  #child: ChildProcess | undefined;

  async read({ reader, file, open = file }: Format): Promise<Answer | 'crash' | 'hang'> {
    this.#child ??= await start();
    const child = this.#child;
    child.send({ reader, path: open });
    const done = new AbortController();
    const late = setTimeout(() => done.abort(), DEADLINE_MS);
    try {
      const answer = await Promise.race([
        once(child, 'message', { signal: done.signal }).then(([message]) => message as Answer),
        once(child, 'exit', { signal: done.signal }).then(() => 'crash' as const),
      ]);
      if (answer === 'crash') this.#child = undefined;
      return answer;
    } catch {
      child.kill('SIGKILL');
      this.#child = undefined;
      return 'hang';
    } finally {
      clearTimeout(late);
      done.abort();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child?.kill();
  }
}

async function start(): Promise<ChildProcess> {
  const child = fork(PROGRAM, {
    execArgv: ['--max-old-space-size=256'],
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
  });
  await once(child, 'message');
  return child;
}
