import { readFile } from 'node:fs/promises';
import { explain } from '@cohesin/core';
import { BgzipIndexedFasta, IndexedFasta } from '@gmod/indexedfasta';
import { baseCodes, checkPlace } from './bases.ts';
import { checkedBgzf } from './checked-file.ts';
import { CompressedStreamError, readChunks } from './compression.ts';
import { bgzfIndex, type FastaEntry, fastaIndex, formatFai, parseFai } from './fasta-index.ts';
import type { Genome } from './genome.ts';
import { keepIndex } from './keep-index.ts';
import { MemoryFile, OpenFile } from './open-file.ts';

/** @throws when the file is damaged, ragged, or does not fit its index */
export async function openFasta(path: string, kind: 'plain' | 'bgzf'): Promise<Genome> {
  const file = await OpenFile.open(path);
  try {
    const entries = parseFai(await indexText(path, file, kind), `${path}.fai`);
    const fai = new MemoryFile(bytesOf(formatFai(entries)));
    const reader =
      kind === 'plain'
        ? new IndexedFasta({ fasta: file, fai })
        : new BgzipIndexedFasta({
            fasta: checkedBgzf(file),
            fai,
            gzi: new MemoryFile(await blockIndex(path, file)),
          });
    const chromosomes = new Map(entries.map(({ name, lengthBp }) => [name, lengthBp]));
    await checkIndex(path, reader, entries).catch((cause: Error) => {
      throw cause.message.startsWith(path) ? cause : new Error(`${path}: ${cause.message}`, { cause });
    });
    return {
      path,
      format: kind === 'plain' ? 'FASTA' : 'FASTA in BGZF',
      chromosomes,
      read: async (chrom, startBp, endBp) => {
        checkPlace(path, chromosomes, chrom, startBp, endBp);
        const letters = await reader.getSequence(chrom, startBp, endBp).catch((cause: unknown) => {
          throw new Error(`${path}: ${chrom}:${startBp}-${endBp}: ${(cause as Error).message}`, { cause });
        });
        if (letters?.length !== endBp - startBp)
          throw staleIndex(path, chrom, letters?.length, endBp - startBp);
        return baseCodes(letters, startBp, `${path}: ${chrom}`);
      },
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function indexText(path: string, file: OpenFile, kind: 'plain' | 'bgzf'): Promise<string> {
  const found = await optional(`${path}.fai`);
  if (found !== undefined) return found.toString('utf8');
  const chunks = readChunks(file.handle, kind === 'plain' ? 'none' : 'gzip');
  const entries = await fastaIndex(chunks, path).catch((cause: unknown) => {
    if (cause instanceof CompressedStreamError) throw new Error(`${path}: ${cause.message}`, { cause });
    throw cause;
  });
  const text = formatFai(entries);
  await keepIndex(`${path}.fai`, bytesOf(text));
  return text;
}

async function blockIndex(path: string, file: OpenFile): Promise<Uint8Array<ArrayBuffer>> {
  const found = await optional(`${path}.gzi`);
  const bytes = await bgzfIndex(file);
  if (found === undefined) await keepIndex(`${path}.gzi`, bytes);
  else if (!found.equals(bytes))
    throw new Error(`${path}: ${path}.gzi is damaged or of another file; delete it, it is made again`);
  return bytes;
}

async function optional(path: string): Promise<Buffer | undefined> {
  return await readFile(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw explain(path, error);
  });
}

/** An index of another file passes every check of the reader: looks at where each sequence begins and ends. */
async function checkIndex(path: string, reader: IndexedFasta, entries: readonly FastaEntry[]): Promise<void> {
  for (const { name, lengthBp, offset } of entries) {
    const header = `>${name}`;
    const before = Math.max(0, offset - 4096);
    const text = new TextDecoder().decode(await reader.fasta.read(offset - before, before));
    const line = text.slice(text.lastIndexOf('\n', text.length - 2) + 1);
    const named = line.startsWith(header) && /^\s/.test(line.slice(header.length)) && text.endsWith('\n');
    if (!named && offset - before < 4096) throw staleIndex(path, name, undefined, lengthBp);
    const last = await reader.getSequence(name, Math.max(0, lengthBp - 1), lengthBp);
    if (last?.length !== Math.min(1, lengthBp)) throw staleIndex(path, name, 0, Math.min(1, lengthBp));
  }
}

function staleIndex(path: string, chrom: string, found: number | undefined, expected: number): Error {
  const what =
    found === undefined
      ? `no header of ${chrom} where ${path}.fai says`
      : `${found} bases of ${chrom} where ${path}.fai says ${expected}`;
  return new Error(
    `${path}: ${what}; the index is of another file: delete ${path}.fai (and .gzi), they are made again`,
  );
}

function bytesOf(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}
