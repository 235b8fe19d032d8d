/** Where gradient sums of two ranks are best added: by the host in shared memory, or by a device. */
import { Device } from '@cohesin/core';
import { type VectorMemory, vectorMemory, wideAdder } from '@cohesin/distributed/testing';
import { environment, publish, type Summary, summarize, table } from './report.ts';

const SIZES_MIB = [1, 4, 32];
const WARM_UP = 3;
const RUNS = 25;
const WORKGROUP = 64;

const ADD = `
@group(0) @binding(0) var<storage, read> part: array<vec2u>;
@group(0) @binding(1) var<storage, read_write> total: array<vec2u>;

@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var i = id.x; i < arrayLength(&total); i += groups.x * ${WORKGROUP}u) {
    let low = total[i].x + part[i].x;
    total[i] = vec2u(low, total[i].y + part[i].y + select(0u, 1u, low < part[i].x));
  }
}`;

/** One rank's share of the sums: its own addends on its device, another rank's in shared memory. */
interface Share {
  readonly device: Device;
  readonly bytes: number;
  readonly memory: VectorMemory;
  /** In shared memory: another rank's addends, and where the totals go, which both ranks read. */
  readonly part: Uint8Array;
  readonly total: Uint8Array;
  readonly own: DeviceBuffer;
  readonly received: DeviceBuffer;
}

interface Row {
  readonly mebibytes: number;
  readonly host: Summary;
  /** Of that, what WebAssembly adds in. */
  readonly adding: Summary;
  readonly onDevice: Summary;
}

type DeviceBuffer = ReturnType<Device['createBuffer']>;

/** Both ways end with the totals on the device and in shared memory. */
export async function sums(): Promise<void> {
  await using device = await Device.open();
  const addOnDevice = await deviceAdder(device);
  const rows: Row[] = [];
  for (const mebibytes of SIZES_MIB) {
    const share = newShare(device, mebibytes * 2 ** 20);
    const addOnHost = hostAdder(share);
    const [host, adding, onDevice]: number[][] = [[], [], []];
    for (let run = 0; run < WARM_UP + RUNS; run++) {
      fill(share, run);
      const start = performance.now();
      const addMs = await addOnHost();
      await device.idle();
      const hostMs = performance.now() - start;
      const expected = share.total.slice();
      fill(share, run);
      const before = performance.now();
      await addOnDevice(share);
      const deviceMs = performance.now() - before;
      if (Buffer.compare(expected, share.total) !== 0) throw new Error('the two ways differ in their bits');
      if (run < WARM_UP) continue;
      host!.push(hostMs);
      adding!.push(addMs);
      onDevice!.push(deviceMs);
    }
    rows.push({
      mebibytes,
      host: summarize(host!),
      adding: summarize(adding!),
      onDevice: summarize(onDevice!),
    });
    for (const buffer of [share.own, share.received]) device.destroyBuffer(buffer);
  }
  report(device, rows);
}

function newShare(device: Device, bytes: number): Share {
  const memory = vectorMemory(2 * bytes);
  return {
    device,
    bytes,
    memory,
    total: new Uint8Array(memory.buffer, 0, bytes),
    part: new Uint8Array(memory.buffer, bytes, bytes),
    own: device.createBuffer(bytes, 'own addends, then totals'),
    received: device.createBuffer(bytes, "another rank's addends"),
  };
}

/** Addends of both ranks, of any sign, whose lower halves carry. */
function fill({ device, bytes, part, own, total }: Share, seed: number): void {
  const words = (factor: number): Uint8Array =>
    new Uint8Array(Uint32Array.from({ length: bytes / 4 }, (_, i) => Math.imul(i + seed, factor)).buffer);
  part.set(words(2_654_435_761));
  total.fill(0);
  device.write(own, 0, words(2_246_822_519));
}

/** As ranks do: the device's addends come to shared memory, WebAssembly adds, the totals go back. Gives ms of adding. */
function hostAdder({ device, bytes, memory, part, total, own }: Share): () => Promise<number> {
  const add = wideAdder(memory);
  return async () => {
    await device.readInto([{ buffer: own, bytes, to: total }]);
    const start = performance.now();
    add(total.byteOffset, part.byteOffset, bytes / 8);
    const addMs = performance.now() - start;
    device.write(own, 0, total);
    return addMs;
  };
}

/** The other rank's addends go to the device, it adds, the totals come to shared memory. */
async function deviceAdder(device: Device): Promise<(share: Share) => Promise<void>> {
  const access = ['read', 'read_write'] as const;
  const pipeline = await device.pipeline(ADD, access, 'add 64-bit integers');
  return async ({ bytes, part, total, own, received }) => {
    device.write(received, 0, part);
    const encoder = device.encoder('add');
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.bindGroup(access, [{ buffer: received }, { buffer: own }], 'add'));
    pass.dispatchWorkgroups(Math.min(4096, bytes / 8 / WORKGROUP));
    pass.end();
    device.submit(encoder);
    await device.readInto([{ buffer: own, bytes, to: total }]);
  };
}

function report(device: Device, rows: readonly Row[]): void {
  const ms = ({ medianMs, p90Ms }: Summary): string => `${medianMs.toFixed(2)} (${p90Ms.toFixed(2)})`;
  const cells = rows.map(({ mebibytes, host, adding, onDevice }) => [
    `${mebibytes} MiB`,
    ms(host),
    ms(adding),
    ms(onDevice),
    (onDevice.medianMs / host.medianMs).toFixed(2),
    ((mebibytes * 2 ** 20) / 8 / adding.medianMs / 1e6).toFixed(2),
  ]);
  const text = [
    `Two ranks share gradient sums, 64-bit integers: this one's addends are on its device, the other's in shared memory. On the host, the device's addends come to shared memory, WebAssembly adds the others, and the totals go back; on the device, the others go there, a kernel adds, and the totals come to shared memory. Both ways move the same bytes, and the bits of the totals are compared each time. ms, median (and 90th percentile) of ${RUNS} turns.`,
    table(
      ['share', 'added by the host', 'of it adding', 'added by the device', 'device / host', '10⁹ sums/s'],
      cells,
    ),
    'Ranks add on the host, in chunks of 1 to 4 MiB.',
  ];
  publish({
    name: 'sums',
    title: 'Gradient sums on the host and on a device',
    environment: environment(device.info),
    text: text.join('\n\n'),
    data: rows,
  });
}
