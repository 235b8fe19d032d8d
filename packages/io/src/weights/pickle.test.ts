import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type PickleGlobal, unpickle } from './pickle.ts';

const OPTIONS = {
  globals: new Map<string, PickleGlobal>([
    ['collections OrderedDict', { special: 'class', call: () => new Map() }],
    ['torch FloatStorage', { special: 'FloatStorage' }],
  ]),
  persistent: () => null,
};

const read = (...bytes: readonly (number | string)[]) =>
  unpickle(
    Uint8Array.from(
      bytes.flatMap((part) => (typeof part === 'string' ? [...Buffer.from(part, 'latin1')] : part)),
    ),
    OPTIONS,
  );

test('plain values are read', () => {
  expect(
    read(0x80, 2, '(NK\x07M\x01\x02J\xff\xff\xff\xff\x8a\x02\x00\x80G\x3f\xf8\0\0\0\0\0\0\x88\x89t.'),
  ).toEqual([null, 7, 513, -1, -32_768, 1.5, true, false]);
  expect(read('\x8a\x09\0\0\0\0\0\0\0\0\x01.')).toBe(2n ** 64n);
  expect(read('}(X\x01\0\0\0aK\x01X\x01\0\0\0bK\x02u.')).toEqual(
    new Map([
      ['a', 1],
      ['b', 2],
    ]),
  );
  const list = read(']q\x00(K\x01h\x00e.') as unknown[]; // holds itself
  expect([list[0], list[1] === list]).toEqual([1, true]);
});

test.each([
  ['a function of the system', 'cos\nsystem\n(X\x04\0\0\0echotR.', /names os\.system/],
  ['a builtin', 'c__builtin__\neval\n(X\x01\0\0\x001tR.', /names __builtin__\.eval/],
  ['a name from the stack', '\x8c\x02os\x8c\x06system\x93.', /names os\.system/],
  ['a method of a map', 'cMap\nconstructor\n.', /names Map\.constructor/],
  ['the old way to call', '(S"echo"\nios\nsystem\n.', /opcode 0x53 .* is not one of plain data/],
  ['an extension', '\x82\x01.', /opcode 0x82/],
  ['a call of what is no function', 'ctorch\nFloatStorage\n)R.', /calls something that cannot be called/],
  ['a call of a value', 'K\x01)R.', /calls something that cannot be called/],
  ['attributes of a list', ']}b.', /sets the attributes of something that is no dictionary/],
  ['a text past the end', 'X\xff\xff\xff\x7fabc.', /2147483647 bytes at byte 5 run past the end/],
  ['a memo that was never kept', 'h\x07.', /recalls value 7/],
  ['no end', 'K\x01', /run past the end/],
  ['an empty stack', '.', /a value is missing/],
  ['a newer protocol', '\x80\x09.', /protocol 9 is newer/],
])('%s is refused', (_, bytes, message) => {
  expect(() => read(bytes)).toThrow(message);
});

test('whatever the bytes are, they are read or refused, and nothing else happens', () => {
  const sound = Buffer.from(
    '}(X\x01\0\0\0aK\x01ctorch\nFloatStorage\nq\x00X\x01\0\0\0b](K\x01h\x00eu.',
    'latin1',
  );
  const altered = fc
    .array(fc.tuple(fc.nat(sound.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 })
    .map((changes) => {
      const bytes = Uint8Array.from(sound);
      for (const [at, value] of changes) bytes[at] = value;
      return bytes;
    });
  fc.assert(
    fc.property(fc.oneof(altered, fc.uint8Array({ maxLength: 40 })), (bytes) => {
      try {
        unpickle(bytes, OPTIONS);
      } catch (error) {
        expect(error).toBeInstanceOf(Error);
      }
    }),
    { numRuns: 2_000 },
  );
});
