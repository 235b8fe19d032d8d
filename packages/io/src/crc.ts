import { crc32c } from '@node-rs/crc32';

const MASK_DELTA = 0xa282ead8; // TensorFlow lib/hash/crc32c.h

/** The masked CRC-32C that TFRecord frames store. */
export function maskedCrc(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + MASK_DELTA) >>> 0;
}
