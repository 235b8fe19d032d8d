import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { HostDType, HostTensor, TypedArray } from './host-tensor.ts';
import { decodeSafetensors, encodeSafetensors, readSafetensors, writeSafetensors } from './safetensors.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'safetensors-'));
});
afterAll(() => rm(folder, { recursive: true }));

const VIEWS: Record<HostDType, (buffer: ArrayBuffer) => TypedArray> = {
  f64: (b) => new Float64Array(b),
  f32: (b) => new Float32Array(b),
  f16: (b) => new Uint16Array(b),
  i64: (b) => new BigInt64Array(b),
  u64: (b) => new BigUint64Array(b),
  i32: (b) => new Int32Array(b),
  u32: (b) => new Uint32Array(b),
  i16: (b) => new Int16Array(b),
  u16: (b) => new Uint16Array(b),
  i8: (b) => new Int8Array(b),
  u8: (b) => new Uint8Array(b),
  bool: (b) => new Uint8Array(b),
};
const BYTES: Record<HostDType, number> = {
  ...{ f64: 8, i64: 8, u64: 8, f32: 4, i32: 4, u32: 4 },
  ...{ f16: 2, i16: 2, u16: 2, i8: 1, u8: 1, bool: 1 },
};

const tensor: fc.Arbitrary<HostTensor> = fc
  .record({
    dtype: fc.constantFrom(...(Object.keys(VIEWS) as HostDType[])),
    shape: fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 3 }),
    seed: fc.uint8Array({ minLength: 1, maxLength: 40 }),
  })
  .map(({ dtype, shape, seed }) => {
    const bytes = BYTES[dtype] * shape.reduce((product, size) => product * size, 1);
    const buffer = Uint8Array.from({ length: bytes }, (_, i) => seed[i % seed.length]!).buffer;
    return { dtype, shape, data: VIEWS[dtype](buffer) };
  });
// Names of digits only are reordered by JSON; no layer has such a name.
const name = fc
  .string({ minLength: 1, maxLength: 12 })
  .filter((text) => !/^\d+$/.test(text) && !text.startsWith('__'));
const named = fc.uniqueArray(fc.tuple(name, tensor), { selector: ([key]) => key, maxLength: 6 });

function rawBits({ data }: HostTensor): number[] {
  return [...new Uint8Array(data.buffer, data.byteOffset, data.byteLength)];
}

function expectSame(
  found: ReadonlyMap<string, HostTensor>,
  expected: readonly (readonly [string, HostTensor])[],
): void {
  expect([...found.keys()]).toEqual(expected.map(([key]) => key));
  for (const [key, want] of expected) {
    const got = found.get(key)!;
    expect(got).toMatchObject({ dtype: want.dtype, shape: want.shape });
    expect(got.data.constructor).toBe(want.data.constructor);
    expect(rawBits(got)).toEqual(rawBits(want));
  }
}

/** A file of this header and so many bytes of data. */
function file(header: unknown, dataBytes: number): Uint8Array {
  const json = new TextEncoder().encode(typeof header === 'string' ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + json.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
  bytes.set(json, 8);
  return bytes;
}

const F32x2 = { dtype: 'F32', shape: [2], data_offsets: [0, 8] };
const decode = (bytes: Uint8Array) => decodeSafetensors(bytes, 'w.safetensors');

describe('safetensors', () => {
  it('decodes what it encodes, for every dtype, at any alignment', () => {
    fc.assert(
      fc.property(named, fc.integer({ min: 0, max: 7 }), (tensors, shift) => {
        const bytes = encodeSafetensors(tensors, { step: '7' });
        const shifted = new Uint8Array(bytes.length + shift).subarray(shift);
        shifted.set(bytes);
        const { tensors: found, metadata } = decode(shifted);
        expectSame(found, tensors);
        expect(metadata).toEqual({ step: '7' });
      }),
    );
  });

  it('reads from a file what it wrote there, and leaves nothing beside it', async () => {
    const path = join(folder, 'model.safetensors');
    await fc.assert(
      fc.asyncProperty(named, async (tensors) => {
        await writeSafetensors(path, tensors, { kind: 'test' });
        expect(new Uint8Array(await readFile(path))).toEqual(encodeSafetensors(tensors, { kind: 'test' }));
        const { tensors: found, metadata } = await readSafetensors(path);
        expectSame(found, tensors);
        expect(metadata).toEqual({ kind: 'test' });
      }),
      { numRuns: 20 },
    );
    expect(await readdir(folder)).toEqual(['model.safetensors']);
  });

  it('starts every tensor on a multiple of its element size', () => {
    const data = (length: number) => new Uint8Array(length);
    const bytes = encodeSafetensors([
      ['a', { shape: [3], dtype: 'u8', data: data(3) }],
      ['b', { shape: [1], dtype: 'f64', data: new Float64Array(1) }],
      ['c', { shape: [3], dtype: 'f16', data: new Uint16Array(3) }],
    ]);
    const headerBytes = Number(new DataView(bytes.buffer).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + headerBytes)));
    expect(headerBytes % 8).toBe(0);
    expect([header.b, header.c, header.a].map((entry) => entry.data_offsets[0])).toEqual([0, 8, 14]);
  });

  it('reads a file laid out by hand', () => {
    const bytes = file({ __metadata__: { format: 'pt' }, w: F32x2 }, 8);
    new DataView(bytes.buffer).setFloat32(bytes.length - 4, 1.5, true);
    const { tensors, metadata } = decode(bytes);
    expect(tensors.get('w')).toEqual({ shape: [2], dtype: 'f32', data: Float32Array.of(0, 1.5) });
    expect(metadata).toEqual({ format: 'pt' });
  });

  it('reads bfloat16 as f32', () => {
    const bytes = file({ w: { ...F32x2, dtype: 'BF16', data_offsets: [0, 4] } }, 4);
    new DataView(bytes.buffer).setUint16(bytes.length - 4, 0xc049, true); // the upper half of −3.140625
    expect(decode(bytes).tensors.get('w')).toEqual({
      shape: [2],
      dtype: 'f32',
      data: Float32Array.of(-3.140625, 0),
    });
  });

  it.each([
    ['too few bytes', new Uint8Array(5), /at least 8 bytes, found 5/],
    [
      'a header longer than the file',
      new Uint8Array(16).fill(255, 0, 7),
      /at most 8 bytes but the file says/,
    ],
    ['a header that is no JSON', file('{"w": ', 0), /the header is not JSON/],
    ['a header that is no object', file([], 0), /should be a JSON object/],
    ['a bad metadata value', file({ __metadata__: { a: 1 } }, 0), /__metadata__\.a should be a string/],
    [
      'an unknown dtype',
      file({ w: { ...F32x2, dtype: 'Q4' } }, 8),
      /tensor w: dtype should be one of .*found "Q4"/,
    ],
    ['a dtype named as a method', file({ w: { ...F32x2, dtype: 'toString' } }, 8), /dtype should be one of/],
    [
      'a negative size',
      file({ w: { ...F32x2, shape: [-2] } }, 8),
      /shape should be sizes >= 0, found \[-2\]/,
    ],
    ['offsets of another size', file({ w: { ...F32x2, shape: [3] } }, 8), /takes 12 bytes but .* hold 8/],
    [
      'offsets the wrong way round',
      file({ w: { ...F32x2, data_offsets: [8, 0] } }, 8),
      /should be \[begin, end\]/,
    ],
    ['an overlap', file({ v: F32x2, w: F32x2 }, 8), /tensor w overlaps .* byte 8 of the data, found 0/],
    ['a gap', file({ w: { ...F32x2, data_offsets: [4, 12] } }, 12), /tensor w leaves a gap/],
    [
      'a cut file',
      file({ w: F32x2 }, 7),
      /cut short: the header describes 8 bytes of data, found 7; tensor w should end at byte 8/,
    ],
    ['trailing bytes', file({ w: F32x2 }, 9), /bytes after the last tensor/],
  ])('refuses %s, naming the file', (_, bytes, message) => {
    expect(() => decode(bytes)).toThrow(message);
    expect(() => decode(bytes)).toThrow(/^w\.safetensors: /);
  });

  it('refuses to encode tensors that cannot be told apart or do not fit their shape', () => {
    const one: HostTensor = { shape: [1], dtype: 'f32', data: new Float32Array(1) };
    expect(() =>
      encodeSafetensors([
        ['w', one],
        ['w', one],
      ]),
    ).toThrow(/two tensors are named w/);
    expect(() => encodeSafetensors([['w', { ...one, shape: [2] }]])).toThrow(
      /\[2\] takes 8 bytes .* holds 4/,
    );
    expect(() => encodeSafetensors([['__metadata__', one]])).toThrow(/rename it/);
  });

  it('says why a file cannot be read or written, and leaves nothing half-written', async () => {
    const missing = join(folder, 'none', 'w.safetensors');
    await expect(readSafetensors(missing)).rejects.toThrow(/none\/w\.safetensors: ENOENT: no such file/);
    await expect(writeSafetensors(missing, [])).rejects.toThrow(
      /none\/w\.safetensors: ENOENT: no such file or folder/,
    );
    const before = await readdir(folder);
    await writeFile(join(folder, 'plain'), '');
    await expect(writeSafetensors(join(folder, 'plain', 'w'), [])).rejects.toThrow(/plain\/w: ENOTDIR/);
    await rm(join(folder, 'plain'));
    expect(await readdir(folder)).toEqual(before);
  });
});
