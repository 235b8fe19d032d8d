/** Reading the fields of a JSON object of unknown content, with errors that name the place. */

/** The fields of one object. Each is asked for once; a default makes it optional, and `null` counts as absent. */
export interface Fields {
  /** The object's place in its file: `model.trunk[3]`. */
  readonly where: string;
  /** Stated as null. */
  isNull(name: string): boolean;
  has(name: string): boolean;
  number(name: string, fallback?: number): number;
  /** A whole number of at least 1. */
  integer(name: string, fallback?: number): number;
  /** Whole numbers of at least 1. */
  integers(name: string): readonly number[];
  flag(name: string, fallback: boolean): boolean;
  text(name: string): string;
  choice<T extends string>(name: string, known: readonly T[], fallback?: T): T;
  value(name: string): unknown;
  /** A list of objects; one object counts as a list of one. */
  objects(name: string): readonly unknown[];
  /** Names that are allowed and not used. */
  skip(...names: string[]): void;
  /** @throws when the object has a field that nothing asked for; the error lists what could be asked for. */
  finish(): void;
}

/** @throws when `value` is no object. */
export function fields(value: unknown, where: string): Fields {
  if (!isRecord(value)) throw new Error(`${where}: expected an object, found ${show(value)}`);
  const asked = new Set<string>();
  const take = (name: string): unknown => {
    asked.add(name);
    return value[name] ?? undefined;
  };
  const read = <T>(name: string, expected: string, accept: (x: unknown) => x is T, fallback?: T): T => {
    const found = take(name) ?? fallback;
    if (accept(found)) return found;
    const text = found === undefined ? 'it is missing' : `found ${show(found)}`;
    throw new Error(`${where}.${name}: expected ${expected}, ${text}`);
  };
  return {
    where,
    isNull: (name) => value[name] === null,
    has: (name) => take(name) !== undefined,
    value: take,
    number: (name, fallback) => read(name, 'a number', isNumber, fallback),
    integer: (name, fallback) => read(name, 'a whole number ≥ 1', isCount, fallback),
    integers: (name) => read(name, 'a list of whole numbers ≥ 1', isCounts),
    flag: (name, fallback) => read(name, 'true or false', isFlag, fallback),
    text: (name) => read(name, 'text', isText),
    choice: <T extends string>(name: string, known: readonly T[], fallback?: T) => {
      const isKnown = (x: unknown): x is T => known.includes(x as T);
      return read(name, `one of ${known.join(', ')}`, isKnown, fallback);
    },
    objects: (name) => {
      const found = read(name, 'an object or a list of objects', isPresent);
      return Array.isArray(found) ? found : [found];
    },
    skip: (...names) => {
      for (const name of names) asked.add(name);
    },
    finish: () => {
      const unknown = Object.keys(value).filter((name) => !asked.has(name));
      if (unknown.length === 0) return;
      throw new Error(`${where}: unknown option ${unknown.join(', ')}; known are ${[...asked].join(', ')}`);
    },
  };
}

const isRecord = (x: unknown): x is Record<string, unknown> =>
  typeof x === 'object' && x !== null && !Array.isArray(x);
const isPresent = (x: unknown): x is object => typeof x === 'object' && x !== null;
const isNumber = (x: unknown): x is number => typeof x === 'number' && Number.isFinite(x);
const isCount = (x: unknown): x is number => Number.isInteger(x) && (x as number) >= 1;
const isCounts = (x: unknown): x is number[] => Array.isArray(x) && x.every(isCount);
const isFlag = (x: unknown): x is boolean => typeof x === 'boolean';
const isText = (x: unknown): x is string => typeof x === 'string';
const show = (x: unknown): string => JSON.stringify(x) ?? 'nothing';
