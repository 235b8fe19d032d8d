import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const CLI = fileURLToPath(new URL('../packages/cli/bin/cohesin.js', import.meta.url));

export interface Run {
  readonly code: number | null;
  readonly lines: readonly string[];
  readonly errors: string;
}

/** Runs the built command as a user would; `killAt` sends SIGKILL when that step is reported (with `--json`). */
export function cohesin(args: readonly string[], killAt?: number): Promise<Run> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [CLI, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    let out = '';
    let errors = '';
    child.stdout.on('data', (chunk: Buffer) => {
      out += chunk.toString();
      if (killAt !== undefined && out.includes(`"step":${killAt},`)) child.kill('SIGKILL');
    });
    child.stderr.on('data', (chunk: Buffer) => {
      errors += chunk.toString();
    });
    child.on('error', reject);
    child.on('close', (code) =>
      resolve({ code, lines: out.trimEnd().split('\n'), errors: errors.replaceAll(/Warning: max.*\n/g, '') }),
    );
  });
}

/** Data that fits `SMALL_BASENJI`. */
export const SMALL_DATA = { lengthBp: 1024, binBp: 8, cropBp: 64, tracks: 5 } as const;
