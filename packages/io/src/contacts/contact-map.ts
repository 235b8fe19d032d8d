/** Contact maps in any of the formats that are read, told by their first bytes. */
import { open } from 'node:fs/promises';
import { explain } from '@cohesin/core';
import type { ContactWindow } from './contact-target.ts';
import { coolerLayout, openCooler } from './cooler.ts';
import { hicLayout, openHic } from './hic.ts';

/** Contacts by place. Close it. */
export interface ContactMap {
  readonly path: string;
  /** In bp. */
  readonly binBp: number;
  /** Those with contacts and weights, under the names of the file, with their lengths in bp. */
  readonly chromosomes: ReadonlyMap<string, number>;
  /** Why the file's other chromosomes are not among them; absent when there are none. */
  readonly withheld?: string;
  /**
   * The square window of a place that begins and ends with a bin; NaN where balancing has filtered a bin.
   *
   * @throws for an unknown chromosome, a place outside it or between bins, or damage
   */
  read(chrom: string, startBp: number, endBp: number): Promise<ContactWindow>;
  /** 1 for each whole bin of a chromosome that balancing has filtered. `[⌊length / binBp⌋]` */
  filtered(chrom: string): Promise<Uint8Array>;
  close(): Promise<void>;
}

export interface ContactMapOptions {
  /** Of a file with several resolutions, in bp. */
  readonly binBp?: number;
  /**
   * What contacts are balanced with: `weight` in coolers (the default there), `KR` (the default), `VC`, `VC_SQRT` or
   * `SCALE` in `.hic` files; `NONE` gives the counts themselves.
   */
  readonly normalization?: string;
}

/** What a file of contact maps says of itself. */
export interface ContactLayout {
  readonly format: string;
  readonly assembly?: string;
  /** Sizes of bins in bp that can be chosen. */
  readonly resolutions: readonly number[];
  /** That some chromosome has at some resolution; not `NONE`. */
  readonly normalizations: readonly string[];
}

/**
 * The map in a cooler (`.cool`, `.mcool`) or `.hic` file.
 *
 * @throws when it is neither or is damaged, the resolution is absent or not chosen among several, or it is not balanced
 */
export async function openContacts(path: string, options: ContactMapOptions = {}): Promise<ContactMap> {
  return (await isHic(path)) ? await openHic(path, options) : await openCooler(path, options);
}

/** @throws when the file is no contact map, or damaged */
export async function contactLayout(path: string): Promise<ContactLayout> {
  return (await isHic(path)) ? await hicLayout(path) : await coolerLayout(path);
}

async function isHic(path: string): Promise<boolean> {
  const handle = await open(path, 'r').catch((cause: unknown) => {
    throw explain(path, cause);
  });
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(4), 0, 4, 0);
    return bytesRead === 4 && buffer.equals(HIC_MAGIC);
  } catch (cause) {
    throw explain(path, cause);
  } finally {
    await handle.close();
  }
}

const HIC_MAGIC = Buffer.from('HIC\0');
