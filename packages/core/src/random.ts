/** Mixes two u32 into one: the finaliser of MurmurHash3 (Appleby 2011) over their combination. */
export function mix(a: number, b: number): number {
  let h = (Math.imul(a, 0x9e37_79b1) ^ Math.imul(b + 0x7f4a_7c15, 0x85eb_ca6b)) >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x85eb_ca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2_ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** A u32 hash of a name (FNV-1a): seeds a parameter by its path, whatever the order it is made in. */
export function hashName(name: string): number {
  let h = 0x811c_9dc5;
  for (const byte of new TextEncoder().encode(name)) h = Math.imul(h ^ byte, 0x0100_0193);
  return h >>> 0;
}
