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

/** A Basenji2 in small: every kind of block, dropout, augmentation and clipping on. */
export const SMALL_BASENJI = {
  train: {
    batch_size: 8,
    optimizer: 'sgd',
    learning_rate: 0.05,
    momentum: 0.9,
    loss: 'poisson',
    clip_norm: 2,
  },
  model: {
    seq_length: 1024,
    augment_rc: true,
    augment_shift: 3,
    activation: 'gelu',
    norm_type: 'batch',
    bn_momentum: 0.9,
    trunk: [
      { name: 'conv_block', filters: 8, kernel_size: 15, pool_size: 2 },
      { name: 'conv_tower', filters_init: 8, filters_mult: 1.25, kernel_size: 5, pool_size: 2, repeat: 2 },
      { name: 'dilated_residual', filters: 6, rate_mult: 1.5, repeat: 2, dropout: 0.3, round: true },
      { name: 'Cropping1D', cropping: 8 },
      { name: 'conv_block', filters: 12, dropout: 0.05 },
    ],
    head_human: { name: 'final', units: 5, activation: 'softplus' },
  },
} as const;

/** Data that fits it. */
export const SMALL_DATA = { lengthBp: 1024, binBp: 8, cropBp: 64, tracks: 5 } as const;
