/**
 * Python's pickle format (protocol 2 and the later opcodes for the same things), read without running anything: only
 * the classes and functions of an allow-list can be named, and each is one of our own functions of plain values.
 * https://github.com/python/cpython/blob/main/Lib/pickletools.py
 */

/** What a pickle of plain data holds. `dict` keeps its order; tuples and lists are both arrays. */
export type PickleValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | PickleValue[]
  | PickleDict
  | PickleSpecial;

export type PickleDict = Map<PickleValue, PickleValue>;

/** A value of the format that is built upon pickle: a class, a storage, a tensor. */
export interface PickleSpecial {
  readonly special: string;
}

/** What a name in a pickle stands for; called with the arguments of a `REDUCE`. */
export interface PickleGlobal extends PickleSpecial {
  readonly call?: (args: readonly PickleValue[]) => PickleValue;
}

export interface UnpickleOptions {
  /** The things that may be named, as `collections OrderedDict`. */
  readonly globals: ReadonlyMap<string, PickleGlobal>;
  /** What a persistent id stands for. */
  readonly persistent: (id: PickleValue) => PickleValue;
}

const MAX_STACK = 1_000_000;

/**
 * The value of a pickle.
 *
 * @throws when it names anything outside `globals`, uses an opcode beyond plain data, or is damaged
 */
export function unpickle(bytes: Uint8Array, options: UnpickleOptions): PickleValue {
  return new Machine(bytes, options).run();
}

const MARK = Symbol('mark');
type Item = PickleValue | typeof MARK;

class Machine {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #options: UnpickleOptions;
  readonly #stack: Item[] = [];
  readonly #memo = new Map<number, PickleValue>();
  #at = 0;

  constructor(bytes: Uint8Array, options: UnpickleOptions) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#options = options;
  }

  run(): PickleValue {
    for (;;) {
      const at = this.#at;
      const opcode = this.number(1);
      if (opcode === 0x2e) return this.pop(); // STOP
      const action = ACTIONS[opcode];
      if (action === undefined) {
        throw new Error(
          `opcode 0x${opcode.toString(16).padStart(2, '0')} at byte ${at} is not one of plain data`,
        );
      }
      action(this);
      if (this.#stack.length > MAX_STACK)
        throw new Error(`more than ${MAX_STACK} values are waiting at byte ${at}`);
    }
  }

  take(length: number): Uint8Array {
    const end = this.#at + length;
    if (!(length >= 0 && end <= this.#bytes.length)) {
      throw new Error(`${length} bytes at byte ${this.#at} run past the end at ${this.#bytes.length}`);
    }
    this.#at = end;
    return this.#bytes.subarray(end - length, end);
  }

  line(): string {
    const end = this.#bytes.indexOf(0x0a, this.#at);
    if (end < 0) throw new Error(`the line at byte ${this.#at} has no end`);
    const text = decoder.decode(this.#bytes.subarray(this.#at, end));
    this.#at = end + 1;
    return text;
  }

  number(bytes: 1 | 2 | 4 | 8, kind: 'unsigned' | 'signed' | 'float' = 'unsigned'): number {
    const at = this.#at;
    this.take(bytes);
    if (kind === 'float') return this.#view.getFloat64(at);
    if (bytes === 1) return this.#view.getUint8(at);
    if (bytes === 2) return this.#view.getUint16(at, true);
    if (bytes === 8) return Number(this.#view.getBigUint64(at, true));
    return kind === 'signed' ? this.#view.getInt32(at, true) : this.#view.getUint32(at, true);
  }

  text(length: number): PickleValue {
    return decoder.decode(this.take(length));
  }

  push(value: PickleValue): void {
    this.#stack.push(value);
  }

  mark(): void {
    this.#stack.push(MARK);
  }

  pop(): PickleValue {
    const value = this.#stack.pop();
    if (value === undefined || value === MARK) throw new Error(`a value is missing before byte ${this.#at}`);
    return value;
  }

  top(): PickleValue {
    const value = this.#stack.at(-1);
    if (value === undefined || value === MARK) throw new Error(`a value is missing before byte ${this.#at}`);
    return value;
  }

  /** The values above the last mark. */
  popMark(): PickleValue[] {
    const from = this.#stack.lastIndexOf(MARK);
    if (from < 0) throw new Error(`a mark is missing before byte ${this.#at}`);
    const values = this.#stack.splice(from);
    return values.slice(1) as PickleValue[];
  }

  tuple(length: number): void {
    const values = Array.from({ length }, () => this.pop());
    this.push(values.reverse());
  }

  remember(index: number): void {
    this.#memo.set(index, this.top());
  }

  rememberNext(): void {
    this.remember(this.#memo.size);
  }

  recall(index: number): void {
    const value = this.#memo.get(index);
    if (value === undefined) throw new Error(`byte ${this.#at} recalls value ${index}, which was never kept`);
    this.push(value);
  }

  setItems(items: readonly PickleValue[]): void {
    const target = this.top();
    if (!(target instanceof Map))
      throw new Error(`byte ${this.#at} sets items of something that is no dictionary`);
    if (items.length % 2 !== 0) throw new Error(`a key at byte ${this.#at} has no value`);
    for (let i = 0; i < items.length; i += 2) target.set(items[i]!, items[i + 1]!);
  }

  append(items: readonly PickleValue[]): void {
    const target = this.top();
    if (!Array.isArray(target)) throw new Error(`byte ${this.#at} appends to something that is no list`);
    for (const item of items) target.push(item);
  }

  global(module: string, name: string): void {
    const found = this.#options.globals.get(`${module} ${name}`);
    if (found === undefined)
      throw new Error(
        `it names ${module}.${name}, which is not read here: only tensors in dictionaries and lists are`,
      );
    this.push(found);
  }

  reduce(): void {
    const args = this.pop();
    const callee = this.pop();
    const call = isSpecial(callee) ? (callee as PickleGlobal).call : undefined;
    if (call === undefined || !Array.isArray(args))
      throw new Error(`byte ${this.#at} calls something that cannot be called`);
    this.push(call(args));
  }

  /** Attributes of an object; those of a dictionary are dropped. */
  build(): void {
    this.pop();
    if (!(this.top() instanceof Map))
      throw new Error(`byte ${this.#at} sets the attributes of something that is no dictionary`);
  }

  persistent(): void {
    this.push(this.#options.persistent(this.pop()));
  }
}

const decoder = new TextDecoder('utf-8', { fatal: true });

const ACTIONS: Readonly<Record<number, (machine: Machine) => void>> = {
  128: (m) => checkProtocol(m.number(1)), // PROTO
  149: (m) => void m.take(8), // FRAME
  40: (m) => m.mark(), // MARK
  48: (m) => void m.pop(), // POP
  78: (m) => m.push(null), // NONE
  136: (m) => m.push(true), // NEWTRUE
  137: (m) => m.push(false), // NEWFALSE
  75: (m) => m.push(m.number(1)), // BININT1
  77: (m) => m.push(m.number(2)), // BININT2
  74: (m) => m.push(m.number(4, 'signed')), // BININT
  138: (m) => m.push(longOf(m.take(m.number(1)))), // LONG1
  71: (m) => m.push(m.number(8, 'float')), // BINFLOAT
  88: (m) => m.push(m.text(m.number(4))), // BINUNICODE
  140: (m) => m.push(m.text(m.number(1))), // SHORT_BINUNICODE
  141: (m) => m.push(m.text(m.number(8))), // BINUNICODE8
  85: (m) => m.push(m.text(m.number(1))), // SHORT_BINSTRING, of Python 2
  84: (m) => m.push(m.text(m.number(4))), // BINSTRING, of Python 2
  67: (m) => m.push(m.take(m.number(1))), // SHORT_BINBYTES
  66: (m) => m.push(m.take(m.number(4))), // BINBYTES
  41: (m) => m.push([]), // EMPTY_TUPLE
  133: (m) => m.tuple(1), // TUPLE1
  134: (m) => m.tuple(2), // TUPLE2
  135: (m) => m.tuple(3), // TUPLE3
  116: (m) => m.push(m.popMark()), // TUPLE
  93: (m) => m.push([]), // EMPTY_LIST
  108: (m) => m.push(m.popMark()), // LIST
  97: (m) => m.append([m.pop()]), // APPEND
  101: (m) => m.append(m.popMark()), // APPENDS
  125: (m) => m.push(new Map()), // EMPTY_DICT
  115: (m) => m.setItems([m.pop(), m.pop()].reverse()), // SETITEM
  117: (m) => m.setItems(m.popMark()), // SETITEMS
  113: (m) => m.remember(m.number(1)), // BINPUT
  114: (m) => m.remember(m.number(4)), // LONG_BINPUT
  148: (m) => m.rememberNext(), // MEMOIZE
  104: (m) => m.recall(m.number(1)), // BINGET
  106: (m) => m.recall(m.number(4)), // LONG_BINGET
  99: (m) => m.global(m.line(), m.line()), // GLOBAL
  147: (m) => stackGlobal(m), // STACK_GLOBAL
  82: (m) => m.reduce(), // REDUCE
  98: (m) => m.build(), // BUILD
  81: (m) => m.persistent(), // BINPERSID
};

const NEWEST_PROTOCOL = 5;

function checkProtocol(protocol: number): void {
  if (protocol > NEWEST_PROTOCOL)
    throw new Error(`pickle protocol ${protocol} is newer than ${NEWEST_PROTOCOL}`);
}

function stackGlobal(machine: Machine): void {
  const [name, module] = [machine.pop(), machine.pop()];
  if (typeof name !== 'string' || typeof module !== 'string')
    throw new Error('a class is named by something that is no text');
  machine.global(module, name);
}

/** Little-endian two's complement. */
function longOf(bytes: Uint8Array): number | bigint {
  const magnitude = bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
  const value = BigInt.asIntN(8 * bytes.length, magnitude);
  return Number.isSafeInteger(Number(value)) ? Number(value) : value;
}

/** Whether a value is one of the format's own. */
export function isSpecial(value: PickleValue | undefined): value is PickleSpecial {
  return typeof value === 'object' && value !== null && 'special' in value;
}
