import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type PhysicalDevice, physicalDevices } from '@cohesin/distributed';

/** Where Debian's `chromium-common` keeps SwiftShader, and where set-up unpacks it. */
const SWIFTSHADER = [
  '/usr/lib/chromium/vk_swiftshader_icd.json',
  fileURLToPath(new URL('../node_modules/.cache/second-driver/vk_swiftshader_icd.json', import.meta.url)),
];
const VARIABLE = 'COHESIN_SECOND_DRIVER';

/** A device that computes here anyway, and one of another driver. */
export interface UnlikeDevices {
  readonly first: PhysicalDevice;
  readonly second: PhysicalDevice;
}

/**
 * Has the Vulkan loader of this process list a second driver: that of the manifest which `COHESIN_SECOND_DRIVER` names, or
 * SwiftShader. Undefined, with a line that says so, where there is none.
 *
 * @throws when the manifest that is named lists no device.
 */
export function addSecondDriver(): UnlikeDevices | undefined {
  const manifest = process.env[VARIABLE] ?? SWIFTSHADER.find((path) => existsSync(path));
  const missing = missingFor(manifest);
  if (manifest === undefined || missing !== undefined) {
    console.warn(`unlike devices are not tested: ${missing}`);
    return undefined;
  }
  const [first] = physicalDevices() as [PhysicalDevice];
  const known = physicalDevices().map(({ uuid }) => uuid);
  const list = process.env.VK_DRIVER_FILES === undefined ? 'VK_ADD_DRIVER_FILES' : 'VK_DRIVER_FILES';
  process.env[list] = [process.env[list], manifest].filter((one) => one !== undefined).join(':');
  const all = physicalDevices();
  const second = all.find(({ uuid }) => !known.includes(uuid));
  if (second === undefined) throw new Error(`${VARIABLE}: ${manifest} lists no device`);
  return { first: all.find(({ uuid }) => uuid === first.uuid)!, second };
}

function missingFor(manifest: string | undefined): string | undefined {
  if (process.platform !== 'linux') return 'devices can be named on Linux only';
  if (spawnSync(process.env.CC ?? 'cc', ['--version']).status !== 0)
    return 'there is no C compiler for the Vulkan layer that shows each rank its device';
  if (manifest !== undefined) return undefined;
  return `there is no second Vulkan driver; install chromium-common, or name a driver's manifest in ${VARIABLE}`;
}
