/** Which elements an index expression reaches: interval arithmetic over its WGSL text. */
import type { Range } from '../op.ts';

/** Smallest and largest value. */
interface Interval {
  readonly low: number;
  readonly high: number;
}

const EVERYTHING: Interval = { low: Number.NEGATIVE_INFINITY, high: Number.POSITIVE_INFINITY };

/**
 * The range of values of an integer expression for indices `i` in a range. The expression may use `i`, numbers,
 * `+ - * / %`, `min max clamp select u32 i32` and the names in `known`; anything else may be any number. The range is never
 * too small: it may be larger than what is reached.
 */
export function rangeOf(index: string, i: Range, known: ReadonlyMap<string, number>): Range {
  const parser = new Parser(index.match(TOKENS) ?? [], { low: i[0], high: i[1] - 1 }, known);
  const { low, high } = parser.expression();
  return parser.done ? [low, high + 1] : [EVERYTHING.low, EVERYTHING.high];
}

const TOKENS = /[A-Za-z_][\w.]*|\d+|&&|\|\||[<>=!]=|\S/g;
const COMPARISONS = ['<', '>', '<=', '>=', '==', '!=', '&&', '||'];

class Parser {
  private readonly tokens: readonly string[];
  private readonly i: Interval;
  private readonly known: ReadonlyMap<string, number>;
  private at = 0;

  constructor(tokens: readonly string[], i: Interval, known: ReadonlyMap<string, number>) {
    this.tokens = tokens;
    this.i = i;
    this.known = known;
  }

  get done(): boolean {
    return this.at === this.tokens.length;
  }

  /** Comparisons are 0 or 1: only `select` takes them, which keeps both of its values. */
  expression(): Interval {
    let left = this.sum();
    while (COMPARISONS.includes(this.tokens[this.at]!)) {
      this.at++;
      this.sum();
      left = { low: 0, high: 1 };
    }
    return left;
  }

  private sum(): Interval {
    let left = this.product();
    for (;;) {
      if (this.take('+')) {
        const right = this.product();
        left = interval(left.low + right.low, left.high + right.high);
      } else if (this.take('-')) {
        const right = this.product();
        left = interval(left.low - right.high, left.high - right.low);
      } else return left;
    }
  }

  private product(): Interval {
    let left = this.atom();
    for (;;) {
      if (this.take('*')) left = product(left, this.atom());
      else if (this.take('/')) left = quotient(left, this.atom());
      else if (this.take('%')) left = remainder(left, this.atom());
      else return left;
    }
  }

  private atom(): Interval {
    const token = this.tokens[this.at++] ?? '';
    if (token === '(') {
      const inner = this.expression();
      return this.take(')') ? inner : EVERYTHING;
    }
    if (token === '-') {
      const { low, high } = this.atom();
      return interval(-high, -low);
    }
    if (/^\d/.test(token)) {
      if (!this.take('u')) this.take('i');
      return interval(Number(token), Number(token));
    }
    if (token === 'i') return this.i;
    if (this.take('(')) return call(token, this.rest());
    const value = this.known.get(token);
    return value === undefined ? EVERYTHING : interval(value, value);
  }

  /** The arguments of a call up to its closing parenthesis. */
  private rest(): Interval[] {
    const values = [this.expression()];
    while (this.take(',')) values.push(this.expression());
    this.take(')');
    return values;
  }

  private take(token: string): boolean {
    if (this.tokens[this.at] !== token) return false;
    this.at++;
    return true;
  }
}

function interval(low: number, high: number): Interval {
  return Number.isNaN(low + high) ? EVERYTHING : { low, high };
}

function call(name: string, [a = EVERYTHING, b = EVERYTHING, c = EVERYTHING]: readonly Interval[]): Interval {
  if (name === 'i32') return a;
  if (name === 'u32') return a.low < 0 ? EVERYTHING : a; // below 0 it would wrap
  if (name === 'min') return { low: Math.min(a.low, b.low), high: Math.min(a.high, b.high) };
  if (name === 'max') return { low: Math.max(a.low, b.low), high: Math.max(a.high, b.high) };
  if (name === 'clamp') return call('min', [call('max', [a, b]), c]);
  if (name === 'select') return { low: Math.min(a.low, b.low), high: Math.max(a.high, b.high) };
  return EVERYTHING;
}

function product(a: Interval, b: Interval): Interval {
  const corners = [a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high];
  return interval(Math.min(...corners), Math.max(...corners));
}

function quotient(a: Interval, b: Interval): Interval {
  if (a.low < 0 || b.low !== b.high || b.low <= 0) return EVERYTHING;
  return interval(Math.floor(a.low / b.low), Math.floor(a.high / b.low));
}

function remainder(a: Interval, b: Interval): Interval {
  const divisor = b.low;
  if (a.low < 0 || divisor !== b.high || divisor <= 0) return EVERYTHING;
  const sameTurn = Math.floor(a.low / divisor) === Math.floor(a.high / divisor);
  return sameTurn ? interval(a.low % divisor, a.high % divisor) : interval(0, divisor - 1);
}
