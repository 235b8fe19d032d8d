/** What work costs on a device and on the way between devices: measured, or of devices one does not have. */
import type { KernelWork } from '@cohesin/core';

export interface Costs {
  /** Devices and how their figures were found. */
  readonly name: string;
  readonly device: {
    /** Billions of multiply-adds a second, in products and convolutions. */
    readonly gigaMultiplyAdds: number;
    /** Bytes moved by other kernels, in GB (1e9 bytes) a second. */
    readonly gigabytes: number;
    /** Of each kernel. */
    readonly launchMs: number;
    readonly memoryGb: number;
    /** By what part of a leaf's time between two meetings the slower of two devices takes longer than the mean; 0 if unknown. */
    readonly jitter?: number;
  };
  /** Between two devices, through the host. */
  readonly link: {
    readonly latencyMs: number;
    readonly gigabytes: number;
    /** Whether a device computes while its values travel to the next stage. */
    readonly overlap: boolean;
  };
  /** Gradient sums, 8 bytes a value, in GB a second of each device's sums. */
  readonly sum: { readonly gigabytes: number };
  /** Measured milliseconds of a kernel for one leaf, by its label; those that are not here follow the device's rates. */
  readonly kernels?: Readonly<Record<string, number>>;
}

/** A device nobody measured: what a card of 24 GB may reach through WebGPU. */
export const ASSUMED_COSTS: Costs = {
  name: 'assumed: 24 GB, 8 TFLOP/s, 800 GB/s; links through the host of 8 GB/s and 0.3 ms',
  device: { gigaMultiplyAdds: 4000, gigabytes: 800, launchMs: 0.005, memoryGb: 24 },
  link: { latencyMs: 0.3, gigabytes: 8, overlap: true },
  sum: { gigabytes: 6 },
};

/**
 * @throws when a figure is missing or not a positive number.
 */
export function readCosts(json: unknown, where: string): Costs {
  const fields = {
    device: ['gigaMultiplyAdds', 'gigabytes', 'launchMs', 'memoryGb'],
    link: ['latencyMs', 'gigabytes'],
    sum: ['gigabytes'],
  };
  const parts = Object(json) as Readonly<Record<string, Readonly<Record<string, unknown>> | undefined>>;
  for (const [part, names] of Object.entries(fields)) {
    for (const name of names) {
      const value = parts[part]?.[name];
      if (!(typeof value === 'number' && value > 0))
        throw new Error(`${where}: ${part}.${name} is ${JSON.stringify(value)}; it must be a number above 0`);
    }
  }
  const costs = json as Costs;
  const { jitter = 0 } = costs.device;
  if (!(typeof jitter === 'number' && jitter >= 0))
    throw new Error(
      `${where}: device.jitter is ${JSON.stringify(jitter)}; it must be a number of at least 0`,
    );
  if (typeof costs.link.overlap !== 'boolean')
    throw new Error(
      `${where}: link.overlap is ${JSON.stringify(costs.link.overlap)}; it must be true or false`,
    );
  return { ...costs, name: costs.name ?? where };
}

/** Time of a kernel for one leaf: as measured, or a roofline. */
export function kernelMs({ label, multiplyAdds, bytes }: KernelWork, { device, kernels }: Costs): number {
  const measured = kernels?.[label];
  if (measured !== undefined) return measured;
  return device.launchMs + Math.max(multiplyAdds / device.gigaMultiplyAdds, bytes / device.gigabytes) / 1e6;
}

/** Time until bytes have come from one device to another. */
export function transferMs(bytes: number, { link }: Costs): number {
  return link.latencyMs + bytes / link.gigabytes / 1e6;
}

/** Time until `ranks` devices know what all of them have of `bytes`. */
export function gatherMs(bytes: number, ranks: number, costs: Costs): number {
  return ranks === 1 ? (2 * bytes) / costs.device.gigabytes / 1e6 : transferMs(bytes, costs);
}

/** Time until `ranks` devices have added up the gradients of `values` parameters: two meetings. */
export function sumMs(values: number, ranks: number, costs: Costs): number {
  return ranks === 1 ? 0 : 2 * costs.link.latencyMs + (8 * values) / costs.sum.gigabytes / 1e6;
}

/** Time until each of `ranks` devices has the new values of `values` parameters from the one that moved them. */
export function giveMs(values: number, ranks: number, costs: Costs): number {
  return ranks === 1 ? 0 : transferMs(4 * values, costs);
}
