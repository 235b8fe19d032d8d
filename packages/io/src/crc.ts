import { crc32c } from '@node-rs/crc32';

const MASK_DELTA = 0xa282ead8; // TensorFlow lib/hash/crc32c.h

/** The masked CRC-32C that TFRecord frames store. */
export function maskedCrc(bytes: Uint8Array): number {
  return masked(crc32c(bytes));
}

/** The masked CRC-32C of the first `length` bytes of what comes in parts; cheaper than of the whole, which has left the cache. */
export class RunningCrc {
  #left: number;
  #crc = 0;

  constructor(length: number) {
    this.#left = length;
  }

  add(part: Uint8Array): void {
    const own = part.subarray(0, this.#left);
    if (own.length > 0) this.#crc = crc32c(own, this.#crc);
    this.#left -= own.length;
  }

  get masked(): number {
    return masked(this.#crc);
  }
}

function masked(crc: number): number {
  return (((crc >>> 15) | (crc << 17)) + MASK_DELTA) >>> 0;
}
