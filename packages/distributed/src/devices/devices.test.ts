import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { nn, sgd, type Traceable, trainStep } from '@cohesin/core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { distribute } from '../distribute.ts';
import { openMesh } from '../mesh.ts';
import { measureCosts } from '../plan/measure.ts';
import { alike, chooseDevices } from './choose.ts';
import { withDevice } from './layer.ts';
import { type PhysicalDevice, physicalDevices } from './vulkan.ts';

const gpu = (place: number, bus: string): PhysicalDevice => ({
  ...{ place, name: 'NVIDIA H100 80GB HBM3', vendor: 0x10de, device: 0x2330, driver: 1, software: false },
  ...{ uuid: `${place}`.repeat(32), pci: `0000:${bus}:00.0`, heaps: [] },
});
const software: PhysicalDevice = {
  ...{
    place: 2,
    name: 'llvmpipe',
    vendor: 0x10005,
    device: 0,
    driver: 1,
    software: true,
    uuid: 'a'.repeat(32),
    heaps: [],
  },
};
const server = [gpu(0, '81'), gpu(1, 'c1'), software];

test('each rank has a GPU of its own, and software drivers are left out beside GPUs', () => {
  expect(chooseDevices(server, 2, false).map(({ place }) => place)).toEqual([0, 1]);
  expect(chooseDevices([software], 3, false).map(({ place }) => place)).toEqual([2, 2, 2]);
  expect(chooseDevices(server, 3, true).map(({ place }) => place)).toEqual([0, 1, 0]);
  expect(() => chooseDevices(server, 3, false)).toThrow(
    '3 devices were asked for but this machine has 2: 0: NVIDIA H100 80GB HBM3 (0000:81:00.0), 1: NVIDIA H100 80GB HBM3 (0000:c1:00.0). Ask for 2, or pass --share-devices',
  );
});

test('devices are named by place, PCI address, UUID or a part of their name', () => {
  const names = ['1', '0000:C1:00.0', `GPU-${'11111111-1111-1111-1111-111111111111'}`, 'LLVM'];
  expect(names.map((name) => chooseDevices(server, [name], false)[0]!.place)).toEqual([1, 1, 1, 2]);
  expect(() => chooseDevices(server, ['h100'], false)).toThrow(
    /"h100" fits 0: .*, 1: .*; name one by its place/,
  );
  expect(() => chooseDevices(server, ['tpu'], false)).toThrow(
    /no device is "tpu"; there are 0: .*, 2: llvmpipe/,
  );
  expect(() => chooseDevices(server, ['0', '0'], false)).toThrow(/two ranks would share 0: NVIDIA/);
});

test('devices are alike that have one name, chip and version of the driver', () => {
  const [first, second] = server as [PhysicalDevice, PhysicalDevice];
  const lists = alike([...server, { ...second, place: 3, driver: 2 }]);
  expect(lists.map((list) => list.map(({ place }) => place))).toEqual([[0, 1], [2], [3]]);
  expect(alike([first, second])).toHaveLength(1);
});

const manifest = '/usr/share/vulkan/icd.d/lvp_icd.json';
const library = `/usr/lib/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu/libvulkan_lvp.so`;
const canCopy = existsSync(manifest) && existsSync(library);
const hasCompiler = spawnSync(process.env.CC ?? 'cc', ['--version']).status === 0;
const folder = mkdtempSync(join(tmpdir(), 'cohesin-devices-'));
let drivers: string | undefined;

function linearStep(): Traceable {
  const model = nn.linear({ inputs: 2, outputs: 1 });
  return trainStep({ model, loss: nn.mseLoss, optimizer: sgd({ learningRate: 0.1 }) });
}

/** A second copy of the software driver, so that the loader lists two devices that only their places tell apart. */
beforeAll(() => {
  drivers = process.env.VK_DRIVER_FILES;
  if (!canCopy) return;
  const icd = JSON.parse(readFileSync(manifest, 'utf8')) as { ICD: { library_path: string } };
  icd.ICD.library_path = join(folder, 'libvulkan_copy.so');
  copyFileSync(library, icd.ICD.library_path);
  writeFileSync(join(folder, 'copy.json'), JSON.stringify(icd));
  process.env.VK_DRIVER_FILES = `${manifest}:${join(folder, 'copy.json')}`;
});

afterAll(() => {
  if (drivers === undefined) delete process.env.VK_DRIVER_FILES;
  else process.env.VK_DRIVER_FILES = drivers;
  rmSync(folder, { recursive: true });
});

test.skipIf(!canCopy)('the Vulkan loader lists both copies, with their memory', () => {
  const devices = physicalDevices();
  expect(devices.map(({ place, software }) => [place, software])).toEqual([
    [0, true],
    [1, true],
  ]);
  expect(devices[0]!.uuid).toBe(devices[1]!.uuid); // why a place is needed
  for (const { heaps } of devices) expect(heaps[0]!.bytes).toBeGreaterThan(2 ** 28);
});

test.skipIf(!canCopy || !hasCompiler)(
  'two ranks on two copies of a driver compute what one device does, bit for bit',
  async () => {
    const fn = linearStep();
    const inputs = { x: [4, 2], y: [4, 1] };
    const weights: string[] = [];
    for (const devices of [['0', '1'], ['1']]) {
      const mesh = await openMesh({ devices });
      expect(mesh.devices.map(({ place }) => `${place}`)).toEqual(devices);
      expect(mesh.level).toBe('L0');
      const step = await distribute(fn, { mesh, inputs, leaves: 4 });
      await step({ x: Float32Array.from({ length: 8 }, (_, i) => i / 8), y: Float32Array.of(1, 2, 3, 4) });
      weights.push(JSON.stringify([...(await step.state.read())].map(([name, { data }]) => [name, ...data])));
      await mesh.close();
    }
    expect(weights[0]).toBe(weights[1]);
  },
);

test.skipIf(!canCopy)('a rank that got another device than its own is found out', async () => {
  const [{ uuid }] = physicalDevices() as [PhysicalDevice];
  const opened = async (): Promise<void> => {
    process.env.COHESIN_DEVICE_OPENED = `0:${uuid}`;
  };
  await expect(withDevice(1, uuid, opened)).rejects.toThrow(/device 1 \(.*\) was chosen but 0:.* was opened/);
  await expect(withDevice(1, uuid, async () => undefined)).rejects.toThrow(/the Vulkan loader did not ask/);
});

test.skipIf(!canCopy || !hasCompiler)('costs are those of the first of the chosen devices', async () => {
  const drivers = process.env.VK_DRIVER_FILES;
  process.env.VK_DRIVER_FILES = `${manifest}:${renamedDriver('llvmtwin')}`;
  try {
    const names = physicalDevices().map(({ name }) => name.slice(0, 8));
    expect([...names].sort()).toEqual(['llvmpipe', 'llvmtwin']); // the loader says in which order
    const cuts = [{ inputs: { x: [2, 1, 2], y: [2, 1, 1] }, leaves: 2 }];
    const { name, kernels } = await measureCosts(linearStep(), cuts, { devices: ['1', '1'], runs: 1 });
    expect(name).toContain(`measured: ${names[1]}`);
    expect(Object.keys(kernels!).length).toBeGreaterThan(2);
  } finally {
    process.env.VK_DRIVER_FILES = drivers;
  }
});

/** A copy of the software driver that calls its device by another name, of as many letters. */
function renamedDriver(name: string): string {
  const icd = JSON.parse(readFileSync(manifest, 'utf8')) as { ICD: { library_path: string } };
  const driver = readFileSync(library);
  const at = driver.indexOf('llvmpipe (LLVM');
  driver.write(name, at);
  icd.ICD.library_path = join(folder, `libvulkan_${name}.so`);
  writeFileSync(icd.ICD.library_path, driver);
  const path = join(folder, `${name}.json`);
  writeFileSync(path, JSON.stringify(icd));
  return path;
}
