/** One genome, many files: are the chromosomes of each the same, whatever each calls them? */
import { someNames } from '../bases.ts';
import { type IntervalSet, readBed, Union } from '../intervals.ts';

/** What was found out about the inputs. Errors stop the work before it begins. */
export class Findings {
  readonly errors: string[] = [];
  readonly warnings: string[] = [];
  readonly notes: string[] = [];

  /** @throws one error that lists them all */
  stop(): void {
    if (this.errors.length === 0) return;
    const count = this.errors.length === 1 ? '1 problem' : `${this.errors.length} problems`;
    throw new Error(
      `prepare: ${count}; nothing was written:\n${this.errors.map((text) => `  - ${text}`).join('\n')}`,
    );
  }
}

/**
 * The name another file has for a chromosome of the genome: the same one, or with `chr` added or left out, and any of
 * `M`, `MT` and `Mito` (Ensembl's in yeast) for another. Undefined when it has none of these.
 */
export function nameIn(has: (name: string) => boolean, chrom: string): string | undefined {
  const bare = chrom.replace(/^chr/i, '');
  const forms = [chrom, `chr${bare}`, bare];
  if (/^(MT?|Mito)$/.test(bare)) forms.push('chrM', 'M', 'MT', 'chrMT', 'Mito');
  return forms.find(has);
}

/**
 * The names in a file with lengths of the chromosomes of the genome that are used. Other lengths are
 * errors, or warnings within `toleranceBp`; other names are notes.
 * Chromosomes the file lacks are left out.
 */
export function matchLengths(
  used: ReadonlyMap<string, number>,
  path: string,
  other: ReadonlyMap<string, number>,
  toleranceBp: number,
  findings: Findings,
): Map<string, string> {
  const names = new Map<string, string>();
  const wrong: string[] = [];
  const near: string[] = [];
  for (const [chrom, length] of used) {
    const name = nameIn((candidate) => other.has(candidate), chrom);
    if (name === undefined) continue;
    names.set(chrom, name);
    const found = other.get(name)!;
    if (found === length) continue;
    const list = Math.abs(found - length) <= toleranceBp ? near : wrong;
    list.push(`${name} has ${found} bp but the genome's ${chrom} has ${length}`);
  }
  if (names.size === 0) {
    findings.errors.push(
      `${path}: has none of the genome's chromosomes: it has ${someNames([...other.keys()])}; the genome has ${someNames([...used.keys()])}. Is it of another organism, or are they named otherwise?`,
    );
  }
  if (wrong.length > 0) {
    findings.errors.push(
      `${path}: ${wrong.length} of ${names.size} chromosomes have other lengths, so it is of another assembly: ${someNames(wrong, 3)}`,
    );
  }
  if (near.length > 0)
    findings.warnings.push(
      `${path}: ${near.length} chromosomes have other lengths, by up to ${toleranceBp} bp: ${someNames(near, 3)}`,
    );
  sayRenamed(path, new Map([...names].map(([chrom, name]) => [name, chrom])), findings);
  return names;
}

/** A note of the names in a file that stand for others of the genome. */
export function sayRenamed(path: string, names: ReadonlyMap<string, string>, { notes }: Findings): void {
  const renamed = [...names].filter(([name, chrom]) => name !== chrom);
  const said = renamed.map(([name, chrom]) => `${name} is taken for ${chrom}`);
  if (said.length > 0) notes.push(`${path}: ${someNames(said, 3)}`);
}

/**
 * The intervals of a BED file under the genome's names, each widened by `padBp` at both ends. Places outside a chromosome
 * are errors; chromosomes that the genome lacks are warnings, or an error when there are no others.
 */
export async function readPlaces(
  path: string,
  genome: ReadonlyMap<string, number>,
  findings: Findings,
  padBp = 0,
): Promise<IntervalSet> {
  const places = new Union(padBp);
  let known = 0;
  const canonical = new Map<string, string | undefined>();
  const unknown = new Map<string, number>();
  const outside: string[] = [];
  for await (const { chrom: written, startBp, endBp, line } of readBed(path)) {
    if (!canonical.has(written))
      canonical.set(
        written,
        nameIn((name) => genome.has(name), written),
      );
    const chrom = canonical.get(written);
    if (chrom === undefined) {
      unknown.set(written, (unknown.get(written) ?? 0) + 1);
      continue;
    }
    if (endBp > genome.get(chrom)!)
      outside.push(`line ${line}: ${written}:${startBp}-${endBp}, but ${chrom} has ${genome.get(chrom)} bp`);
    places.add({ chrom, startBp, endBp });
    known++;
  }
  sayRenamed(path, new Map([...canonical].map(([name, chrom]) => [name, chrom ?? name])), findings);
  const rows = [...unknown.values()].reduce((sum, count) => sum + count, 0);
  if (outside.length > 0)
    findings.errors.push(
      `${path}: ${outside.length} intervals end outside their chromosome, so it is of another assembly: ${someNames(outside, 3)}`,
    );
  if (rows > 0) {
    const text = `${path}: ${rows} of ${rows + known} intervals are on ${unknown.size} chromosomes the genome has not (${someNames([...unknown.keys()])})`;
    (known === 0 ? findings.errors : findings.warnings).push(
      `${text}${known === 0 ? '' : '; they are passed over'}`,
    );
  }
  return places.finish();
}
