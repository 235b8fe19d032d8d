/** What there is to say about a file or a folder, as plain data. */
export interface Inspection {
  readonly path: string;
  /** What it is, in a line. */
  readonly what: string;
  /** Name and value. */
  readonly facts: readonly (readonly [string, string])[];
  readonly tables: readonly Table[];
  /** What the pictures show. */
  readonly caption: string;
  /** Values to draw. */
  readonly curves: readonly Curve[];
  readonly maps: readonly HeatMap[];
  /** Unusual, and perhaps meant. */
  readonly warnings: readonly string[];
  /** Damage, with its place. */
  readonly problems: readonly string[];
}

export interface Table {
  readonly header: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

export interface Curve {
  readonly name: string;
  readonly values: readonly number[];
}

/** A square picture. */
export interface HeatMap {
  readonly name: string;
  readonly side: number;
  /** Row-major `[side, side]`, NaN where there is nothing. */
  readonly values: Float64Array;
}

/** An inspection as it grows. */
export class Notes implements Inspection {
  readonly path: string;
  what = '';
  caption = '';
  readonly facts: [string, string][] = [];
  readonly tables: Table[] = [];
  readonly curves: Curve[] = [];
  readonly maps: HeatMap[] = [];
  readonly warnings: string[] = [];
  readonly problems: string[] = [];

  constructor(path: string) {
    this.path = path;
  }

  fact(name: string, value: string | number): void {
    this.facts.push([name, typeof value === 'number' ? value.toLocaleString('en') : value]);
  }

  /** Notes an error as damage. */
  problem(error: unknown): void {
    this.problems.push(error instanceof Error ? error.message : String(error));
  }
}

/** A number in at most five digits. */
export function brief(value: number): string {
  return String(Number(value.toPrecision(5)));
}
