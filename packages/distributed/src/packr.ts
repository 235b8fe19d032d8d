import { Packr } from 'msgpackr';

// Without moreTypes msgpackr writes typed arrays as plain bytes of the wrong length.
const packr = new Packr({ moreTypes: true, useRecords: false });

/** A plain value as MessagePack; typed arrays, Maps and exact doubles survive. */
export function packValue(value: unknown): Uint8Array {
  return packr.pack(value);
}

/** @throws when the bytes are not one whole MessagePack value. */
export function unpackValue(bytes: Uint8Array): unknown {
  return packr.unpack(bytes);
}
