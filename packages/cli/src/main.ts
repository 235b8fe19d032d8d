import { KernelTableError, NotFiniteError, StageError } from '@cohesin/core';
import { type Command, helpText, parseOptions, UsageError } from './command-line.ts';
import { baseline } from './commands/baseline.ts';
import { demo } from './commands/demo.ts';
import { devices } from './commands/devices.ts';
import { evaluate } from './commands/evaluate.ts';
import { inspect } from './commands/inspect.ts';
import { measure } from './commands/measure.ts';
import { plan } from './commands/plan.ts';
import { prepare } from './commands/prepare.ts';
import { simulate } from './commands/simulate.ts';
import { train } from './commands/train.ts';
import { tuneCommand } from './commands/tune.ts';
import { verify } from './commands/verify.ts';

const COMMANDS: readonly Command[] = [
  devices,
  plan,
  measure,
  prepare,
  inspect,
  tuneCommand,
  train,
  verify,
  evaluate,
  baseline,
  simulate,
  demo,
];

/** sysexits.h: a user's mistake, a number that is not one, and a fault that may not come again. */
const EXIT = { configuration: 78, numeric: 70, retryable: 75 } as const;

async function main([name, ...args]: readonly string[]): Promise<void> {
  const command = COMMANDS.find((candidate) => candidate.name === name);
  if (command === undefined) {
    if (name === undefined || name === '--help' || name === 'help') return console.log(overview());
    throw new UsageError(`cohesin has no command '${name}'. ${overview()}`);
  }
  if (args.includes('--help')) return console.log(helpText(command));
  await command.run(parseOptions(command, args));
}

function overview(): string {
  const lines = COMMANDS.map(({ name, about }) => `  ${name.padEnd(10)}${about}`);
  return ['Commands:', ...lines, '', 'cohesin COMMAND --help tells more.'].join('\n');
}

function exitCode(error: unknown): number {
  const isUsage = [UsageError, KernelTableError, StageError].some((kind) => error instanceof kind);
  if (isUsage) return EXIT.configuration;
  return error instanceof NotFiniteError ? EXIT.numeric : EXIT.retryable;
}

try {
  await main(process.argv.slice(2));
  process.exit(); // 0, or what the command set
} catch (error) {
  console.error(error instanceof Error ? `cohesin: ${error.message}` : error);
  if (process.env.COHESIN_TRACE !== undefined && error instanceof Error) console.error(error.stack);
  process.exit(exitCode(error));
}
