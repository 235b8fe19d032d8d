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
  /** What the command takes besides options, if anything, in capitals, and how many of them. */
  readonly arguments?: { readonly about: string; readonly least: number; readonly most: number };
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
  /** What was given besides options. */
  readonly arguments: readonly string[];

  constructor(
    command: string,
    values: Readonly<Record<string, string | boolean | undefined>>,
    given: readonly string[] = [],
  ) {
    this.command = command;
    this.values = values;
    this.arguments = given;
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
    const { about, least, most } = command.arguments ?? { about: 'argument', least: 0, most: 0 };
    const allowPositionals = most > 0;
    const { values, positionals } = parseArgs({ args: [...args], options, allowPositionals });
    if (positionals.length < least || positionals.length > most) {
      const expected = least === most ? `one ${about} is` : `${least} to ${most} of ${about} are`;
      throw new Error(`${expected} expected, found ${positionals.length}`);
    }
    return new Options(command.name, values as Record<string, string | boolean | undefined>, positionals);
  } catch (cause) {
    const names = Object.keys(command.options).map((name) => `--${name}`);
    throw new UsageError(
      `cohesin ${command.name}: ${(cause as Error).message}. Known options: ${names.join(' ')}`,
      { cause },
    );
  }
}

/** A command's help page. */
export function helpText(command: Command): string {
  const { name, about, options, examples } = command;
  const left = Object.entries(options).map(
    ([option, { value }]) => `--${option}${value === undefined ? '' : ` ${value}`}`,
  );
  const width = Math.max(...left.map(({ length }) => length)) + 2;
  const lines = Object.values(options).map(({ about: text }, i) => `  ${left[i]!.padEnd(width)}${text}`);
  return [
    `cohesin ${name}${command.arguments === undefined ? '' : ` ${command.arguments.about}`}: ${about}`,
    '',
    'Options:',
    ...lines,
    '',
    'Examples:',
    ...examples.map((line) => `  ${line}`),
  ].join('\n');
}
