/** Seeded damage to files. */
import { deflateSync, gunzipSync, gzipSync, inflateSync } from 'node:zlib';
import { numbers } from '@cohesin/io/testing';

export const KINDS = ['bit flips', 'cut', 'length bomb', 'compression', 'shuffled bytes'] as const;
export type Kind = (typeof KINDS)[number];

type Draw = (below: number) => number;

/** The file after mutation number `index` of its kind; the same for the same arguments. */
export function mutate(bytes: Uint8Array, kind: Kind, index: number): Buffer {
  const next = numbers((index + 1) * 7919 + KINDS.indexOf(kind) * 104_729);
  for (let warmUp = 0; warmUp < 4; warmUp++) next(); // neighbouring seeds begin alike
  return MUTATIONS[kind](Buffer.from(bytes), (below) => Math.floor(next() * below));
}

const MUTATIONS: Readonly<Record<Kind, (bytes: Buffer, draw: Draw) => Buffer>> = {
  'bit flips': (bytes, draw) => {
    for (let flips = 1 + draw(8); flips > 0; flips--) bytes[draw(bytes.length)]! ^= 1 << draw(8);
    return bytes;
  },
  cut: (bytes, draw) => bytes.subarray(0, draw(bytes.length)),
  'length bomb': (bytes, draw) => {
    const bomb = BOMBS[draw(BOMBS.length)]!;
    bomb.copy(bytes, draw(Math.max(1, bytes.length - bomb.length)));
    return bytes;
  },
  compression: (bytes, draw) => [gzipSync, deflateSync, opened][draw(3)]!(bytes),
  'shuffled bytes': (bytes, draw) => {
    const length = 1 + draw(Math.min(64, bytes.length >> 1));
    const [a, b] = [draw(bytes.length - length), draw(bytes.length - length)];
    const kept = Buffer.from(bytes.subarray(a, a + length));
    bytes.copyWithin(a, b, b + length);
    kept.copy(bytes, b);
    return bytes;
  },
};

/** Lengths as text and as little- and big-endian integers, from just too large to absurd. */
const BOMBS: readonly Buffer[] = [
  ...['ffffffff', 'ffffff7f', '7fffffff', '00000040', '40000000', '00ffffff', 'ffff'],
  ...['ffffffffffffffff', 'ffffffffffffff7f', '0000000001000000', '0000004000000000', '00000000ffffffff'],
]
  .map((hex) => Buffer.from(hex, 'hex'))
  .concat(['99999999999', '4294967295', '1e99', '-1'].map((text) => Buffer.from(text)));

/** Without its compression, or without its first half. */
function opened(bytes: Buffer): Buffer {
  for (const open of [gunzipSync, inflateSync]) {
    try {
      return open(bytes);
    } catch {
      // not compressed in this way
    }
  }
  return bytes.subarray(bytes.length >> 1);
}
