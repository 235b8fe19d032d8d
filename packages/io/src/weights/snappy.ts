/** Google's Snappy, as blocks of LevelDB tables may be compressed: https://github.com/google/snappy/blob/main/format_description.txt */

const MAX_BYTES = 2 ** 30;

/** The bytes of a raw Snappy block. @throws when it is damaged. */
export function unsnap(block: Uint8Array): Uint8Array {
  const { value: length, next } = readVarint(block, 0);
  if (length > MAX_BYTES) throw new Error(`a Snappy block states ${length} bytes; it is damaged`);
  const output = new Uint8Array(length);
  let [at, to] = [next, 0];
  while (at < block.length) {
    const tag = block[at]!;
    const { from, bytes, next } = (tag & 3) === 0 ? literal(block, at) : copy(block, at);
    if (bytes > length - to)
      throw new Error(`a Snappy block gives more than the ${length} bytes that it states; it is damaged`);
    if (from >= 0) output.set(block.subarray(from, from + bytes), to);
    else repeat(output, to, -from, bytes);
    to += bytes;
    at = next;
  }
  if (to !== length) throw new Error(`a Snappy block states ${length} bytes but gives ${to}; it is damaged`);
  return output;
}

/** An unsigned LEB128 number of at most 53 bits, and where the next byte is. @throws when it does not end. */
export function readVarint(bytes: Uint8Array, at: number): { readonly value: number; readonly next: number } {
  let value = 0;
  for (let i = 0; i < 8; i++) {
    const byte = bytes[at + i];
    if (byte === undefined) break;
    value += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) return { value, next: at + i + 1 };
  }
  throw new Error(`the number at byte ${at} has no end; it is damaged`);
}

interface Element {
  /** Where the bytes are in the block; negative: that far back in the output. */
  readonly from: number;
  readonly bytes: number;
  readonly next: number;
}

function literal(block: Uint8Array, at: number): Element {
  const short = block[at]! >> 2;
  const extra = short < 60 ? 0 : short - 59;
  const bytes = (extra === 0 ? short : little(block, at + 1, extra)) + 1;
  const from = at + 1 + extra;
  if (from + bytes > block.length)
    throw new Error(`a Snappy literal of ${bytes} bytes runs past its block; it is damaged`);
  return { from, bytes, next: from + bytes };
}

function copy(block: Uint8Array, at: number): Element {
  const tag = block[at]!;
  if ((tag & 3) === 1) {
    const offset = ((tag >> 5) << 8) | little(block, at + 1, 1);
    return { from: -offset, bytes: ((tag >> 2) & 7) + 4, next: at + 2 };
  }
  const width = (tag & 3) === 2 ? 2 : 4;
  return { from: -little(block, at + 1, width), bytes: (tag >> 2) + 1, next: at + 1 + width };
}

function repeat(output: Uint8Array, to: number, back: number, bytes: number): void {
  if (back === 0 || back > to)
    throw new Error(`a Snappy copy reaches ${back} bytes back from byte ${to}; it is damaged`);
  for (let i = 0; i < bytes; i++) output[to + i] = output[to + i - back]!; // may read what it has just written
}

function little(bytes: Uint8Array, at: number, width: number): number {
  if (at + width > bytes.length) throw new Error('a Snappy block ends inside an element; it is damaged');
  let value = 0;
  for (let i = 0; i < width; i++) value += bytes[at + i]! * 2 ** (8 * i);
  return value;
}
