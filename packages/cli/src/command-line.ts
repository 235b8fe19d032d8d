import { parseArgs } from 'node:util';

/** An option of a command. Without `value` it is a switch. */
export interface OptionSpec {
  readonly value?: string;
  readonly about: string;
}

/** A command: its options teach themselves in `--help`. */
export interface Command {
  readonly name: string;
  readonly about: string;
  /** What the command takes besides options, if anything, in capitals. */
  readonly argument?: string;
  /** Complete lines to copy. */
  readonly examples: readonly string[];
  readonly options: Readonly<Record<string, OptionSpec>>;
  run(options: Options): Promise<void>;
}

/** Bad use: the message says what to change. Exit code 78. */
export class UsageError extends Error {
  override name = 'UsageError';
}

/** The options a command was given, read with checks. */
export class Options {
  private readonly values: Readonly<Record<string, string | boolean | undefined>>;
  private readonly command: string;
  /** What was given besides options; empty for a command that takes nothing. */
  readonly argument: string;

  constructor(
    command: string,
    values: Readonly<Record<string, string | boolean | undefined>>,
    argument = '',
  ) {
    this.command = command;
    this.values = values;
    this.argument = argument;
  }

  flag(name: string): boolean {
    return this.values[name] === true;
  }

  text(name: string): string | undefined {
    const value = this.values[name];
    return typeof value === 'string' ? value : undefined;
  }

  /** @throws when it is missing. */
  required(name: string): string {
    const value = this.text(name);
    if (value === undefined)
      throw new UsageError(`cohesin ${this.command} needs --${name}; see cohesin ${this.command} --help`);
    return value;
  }

  /** A whole number of at least `least`. */
  count(name: string, least = 1): number | undefined {
    const value = this.text(name);
    if (value === undefined) return undefined;
    const number = Number(value);
    if (!Number.isSafeInteger(number) || number < least) {
      throw new UsageError(`--${name} is '${value}'; it must be a whole number of at least ${least}`);
    }
    return number;
  }

  number(name: string): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const value = Number(text);
    if (text.trim() !== '' && Number.isFinite(value)) return value;
    throw new UsageError(`--${name} is '${text}'; it must be a number`);
  }

  /** Whole numbers between commas. */
  integers(name: string): readonly number[] | undefined {
    const value = this.text(name);
    if (value === undefined) return undefined;
    if (/^[+-]?\d+(,[+-]?\d+)*$/.test(value)) return value.split(',').map(Number);
    throw new UsageError(`--${name} is '${value}'; it must be whole numbers with commas between, as 1,0,-1`);
  }

  /** Texts between commas. */
  list(name: string): readonly string[] | undefined {
    const texts = this.text(name)?.split(',');
    if (texts?.includes(''))
      throw new UsageError(`--${name} is '${this.text(name)}'; there is nothing between two of its commas`);
    return texts;
  }

  choice<T extends string>(name: string, choices: readonly T[]): T | undefined {
    const value = this.text(name);
    if (value === undefined) return undefined;
    const found = choices.find((choice) => choice === value);
    if (found === undefined) throw new UsageError(`--${name} is '${value}'; choose ${choices.join(' or ')}`);
    return found;
  }
}

/**
 * Reads a command's arguments.
 *
 * @throws UsageError for an unknown option, listing the known ones, and for arguments missing or too many.
 */
export function parseOptions(command: Command, args: readonly string[]): Options {
  const known = { ...command.options, help: { about: '' } };
  const options = Object.fromEntries(
    Object.entries(known).map(([name, spec]) => [
      name,
      { type: 'value' in spec ? ('string' as const) : ('boolean' as const) },
    ]),
  );
  try {
    const allowPositionals = command.argument !== undefined;
    const { values, positionals } = parseArgs({ args: [...args], options, allowPositionals });
    if (allowPositionals && positionals.length !== 1)
      throw new Error(`one ${command.argument} is expected, found ${positionals.length}`);
    return new Options(
      command.name,
      values as Record<string, string | boolean | undefined>,
      positionals[0] ?? '',
    );
  } catch (cause) {
    const names = Object.keys(command.options).map((name) => `--${name}`);
    throw new UsageError(
      `cohesin ${command.name}: ${(cause as Error).message}. Known options: ${names.join(' ')}`,
      { cause },
    );
  }
}

/** A command's help page. */
export function helpText({ name, argument, about, options, examples }: Command): string {
  const left = Object.entries(options).map(
    ([option, { value }]) => `--${option}${value === undefined ? '' : ` ${value}`}`,
  );
  const width = Math.max(...left.map(({ length }) => length)) + 2;
  const lines = Object.values(options).map(({ about: text }, i) => `  ${left[i]!.padEnd(width)}${text}`);
  return [
    `cohesin ${name}${argument === undefined ? '' : ` ${argument}`}: ${about}`,
    '',
    'Options:',
    ...lines,
    '',
    'Examples:',
    ...examples.map((line) => `  ${line}`),
  ].join('\n');
}
