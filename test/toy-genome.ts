/** A toy genome with two tracks, made by the test that uses it. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { crc32, deflateRawSync } from 'node:zlib';
import { numbers, type WigValue, writeBigWig } from '@cohesin/io/testing';

export const TOY_LENGTHS = { chrI: 6000, chrII: 4001, chrIII: 5000 } as const;

/** Letters, lower case and N among them. */
export function toyLetters(seed: number): Record<string, string> {
  const draw = numbers(seed);
  const letter = (): string => 'ACGTacgtACGTACGTN'[Math.floor(draw() * 17)]!;
  return Object.fromEntries(
    Object.entries(TOY_LENGTHS).map(([name, length]) => [name, Array.from({ length }, letter).join('')]),
  );
}

export function fastaText(letters: Readonly<Record<string, string>>, lineEnd = '\n'): string {
  return Object.entries(letters)
    .map(([name, bases]) => `>${name} a toy${lineEnd}${bases.replaceAll(/.{1,61}/g, `$&${lineEnd}`)}`)
    .join('');
}

/** BGZF in blocks of a few hundred bytes. */
export function bgzf(text: string): Buffer {
  const blocks = [...(text.match(/[\s\S]{1,700}/g) ?? []), ''].map((part) => {
    const body = deflateRawSync(part);
    const head = Buffer.from('1f8b08040000000000ff0600424302000000', 'hex');
    head.writeUInt16LE(head.length + body.length + 8 - 1, 16);
    const tail = Buffer.alloc(8);
    tail.writeUInt32LE(crc32(part), 0);
    tail.writeUInt32LE(part.length, 4);
    return Buffer.concat([head, body, tail]);
  });
  return Buffer.concat(blocks);
}

/** Values with gaps between some of them. */
export function toyValues(seed: number, lengths: Readonly<Record<string, number>>): WigValue[] {
  const draw = numbers(seed);
  return Object.entries(lengths).flatMap(([chrom, length]) => {
    const values: WigValue[] = [];
    for (let start = Math.floor(draw() * 9); start < length; ) {
      const end = Math.min(length, start + 1 + Math.floor(draw() * 40));
      values.push({ chrom, start, end, value: Math.fround(draw() * 20) });
      start = end + (draw() < 0.2 ? Math.floor(draw() * 60) : 0);
    }
    return values;
  });
}

/** `genome.fa`, `a.bw` and `b.bw` in a folder; `b` calls chromosomes by their bare numerals. */
export function writeToy(folder: string): { letters: Record<string, string>; values: WigValue[][] } {
  const letters = toyLetters(1);
  writeFileSync(join(folder, 'genome.fa'), fastaText(letters));
  const bare = Object.fromEntries(
    Object.entries(TOY_LENGTHS).map(([name, length]) => [name.slice(3), length]),
  );
  const values = [toyValues(2, TOY_LENGTHS), toyValues(3, bare)];
  writeBigWig(join(folder, 'a.bw'), TOY_LENGTHS, values[0]!);
  writeBigWig(join(folder, 'b.bw'), bare, values[1]!);
  return { letters, values };
}
