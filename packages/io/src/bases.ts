/** Letters of DNA as codes. */

/** A, C, G, T as 0..3 in either case; every other IUPAC letter as 4; anything else as 255. */
const CODE_OF_LETTER: Uint8Array = new Uint8Array(256).fill(255);
for (const letter of 'NRYSWKMBDHVXU') setBothCases(letter, 4);
for (const [code, letter] of [...'ACGT'].entries()) setBothCases(letter, code);

function setBothCases(letter: string, code: number): void {
  CODE_OF_LETTER[letter.charCodeAt(0)] = code;
  CODE_OF_LETTER[letter.toLowerCase().charCodeAt(0)] = code;
}

/**
 * Codes of the letters.
 *
 * @throws for a character that stands for no base, with its place after `startBp`
 */
export function baseCodes(letters: string, startBp: number, where: string): Uint8Array {
  const codes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) {
    const code = CODE_OF_LETTER[letters.charCodeAt(i)] ?? 255;
    if (code === 255)
      throw new Error(`${where}: ${JSON.stringify(letters[i])} at ${startBp + i} is no letter of DNA`);
    codes[i] = code;
  }
  return codes;
}

/**
 * Refuses places that a reader would quietly cut short.
 *
 * @throws for an unknown chromosome, and a place that is not inside it
 */
export function checkPlace(
  path: string,
  chromosomes: ReadonlyMap<string, number>,
  chrom: string,
  startBp: number,
  endBp: number,
): void {
  const length = chromosomes.get(chrom);
  if (length === undefined)
    throw new Error(`${path}: no chromosome ${chrom}; it has ${someNames([...chromosomes.keys()])}`);
  if (
    Number.isSafeInteger(startBp) &&
    Number.isSafeInteger(endBp) &&
    startBp >= 0 &&
    startBp <= endBp &&
    endBp <= length
  )
    return;
  throw new Error(`${path}: ${chrom}:${startBp}-${endBp} is not inside ${chrom}, which has ${length} bp`);
}

/** The first few of a list of names, and how many more. */
export function someNames(names: readonly string[], shown = 6): string {
  const rest = names.length - shown;
  return names.length === 0
    ? 'none'
    : names.slice(0, shown).join(', ') + (rest > 0 ? ` and ${rest} more` : '');
}
