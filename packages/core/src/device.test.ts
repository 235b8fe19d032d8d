import { expect, test } from 'vitest';
import { Device } from './device.ts';
import { foretoldNapMs, napMs } from './polling.ts';

test.each([
  ['shared memory, in several pieces', new SharedArrayBuffer(2 ** 19 + 3)],
  ['memory of its own', new ArrayBuffer(2 ** 19 + 3)],
])(
  'bytes from %s arrive on the device, filled up to words with zeros, and go back into shared memory',
  async (_, memory) => {
    await using device = await Device.open();
    const bytes = new Uint8Array(memory, 1).map((_, i) => (i * 31) % 251);
    const source = new Uint8Array(memory, 1);
    source.set(bytes);
    const size = 2 ** 19 + 4;
    const buffer = device.createBuffer(size + 4, 'target');
    device.write(buffer, 0, new Uint8Array(size + 4).fill(255));
    device.write(buffer, 4, source);
    const to = new Uint8Array(new SharedArrayBuffer(size + 4));
    await device.readInto([{ buffer, bytes: size + 4, to }]);
    expect([...to.subarray(0, 4)]).toEqual([255, 255, 255, 255]);
    expect(Buffer.compare(to.subarray(4, 4 + bytes.length), bytes)).toBe(0);
    expect([...to.subarray(4 + bytes.length)]).toEqual([0, 0]);
  },
);

test.each([
  [1, 30],
  [40, 90],
  [3000, 900],
])(
  'a wait of %i ms costs at most %i naps and is prolonged by less than 1 ms, or 1 %%, or 5 ms',
  (waitMs, most) => {
    let [naps, at] = [0, 0];
    while (at < waitMs) at += napMs(++naps, at);
    expect(naps).toBeLessThan(most);
    expect(at - waitMs).toBeLessThanOrEqual(Math.min(5, Math.max(1, 0.01 * waitMs)));
  },
);

test.each([
  [6, 3],
  [36, 5],
  [300, 18],
  [3000, 121],
])(
  'a wait of %i ms that is foretold, or is a fifth shorter, costs at most %i naps and is prolonged by at most 10 ms, or √0.1 of it',
  (waitMs, most) => {
    for (const actualMs of [waitMs, 0.8 * waitMs]) {
      let [naps, at] = [0, 0];
      for (; at < actualMs; naps++) at += foretoldNapMs(waitMs, at);
      expect(naps).toBeLessThanOrEqual(most);
      expect(at - actualMs).toBeLessThanOrEqual(Math.min(10, Math.sqrt(0.1 * waitMs)));
    }
  },
);
