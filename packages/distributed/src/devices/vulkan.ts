import koffi from 'koffi';

/** Memory of a device, or memory of the host that it can use. */
export interface MemoryHeap {
  readonly bytes: number;
  /** On the device; the rest is the host's. */
  readonly local: boolean;
  /** What this process may take of it now, and what it has taken; absent without VK_EXT_memory_budget. */
  readonly budgetBytes?: number;
  readonly usedBytes?: number;
}

/** A GPU, or a software driver, as its driver describes it: what WebGPU does not tell. */
export interface PhysicalDevice {
  /** Place in the list of the Vulkan loader. */
  readonly place: number;
  readonly name: string;
  readonly vendor: number;
  readonly device: number;
  /** Version of the driver, as it numbers them. */
  readonly driver: number;
  /** A software driver on the CPU. */
  readonly software: boolean;
  /** 32 hexadecimal digits. Copies of a software driver have the same. */
  readonly uuid: string;
  /** `domain:bus:device.function`, as in `lspci -D`; absent where there is no bus. */
  readonly pci?: string;
  readonly heaps: readonly MemoryHeap[];
}

// Structure types, sizes and offsets of the Vulkan headers, on 64-bit platforms.
const APPLICATION_INFO = { type: 0, bytes: 48, apiVersionAt: 44 };
const INSTANCE_CREATE_INFO = { type: 1, bytes: 64, applicationAt: 24 };
const PROPERTIES_2 = {
  ...{ type: 1_000_059_001, bytes: 16 + 1_008 },
  ...{ driverAt: 20, vendorAt: 24, deviceAt: 28, kindAt: 32, nameAt: 36, nameBytes: 256 },
};
const ID_PROPERTIES = { type: 1_000_071_004, bytes: 72, uuidAt: 16, uuidBytes: 16 };
const PCI_BUS_INFO = { type: 1_000_212_000, bytes: 32, addressAt: 16 };
const MEMORY_PROPERTIES_2 = {
  ...{ type: 1_000_059_006, bytes: 16 + 520 },
  ...{ heapCountAt: 16 + 260, heapsAt: 16 + 264, heapBytes: 16, heapFlagsAt: 8 },
};
const MEMORY_BUDGET = { type: 1_000_237_000, bytes: 16 + 16 * 8 * 2, budgetAt: 16, usageAt: 16 + 16 * 8 };
const EXTENSION = { bytes: 260, nameBytes: 256 };
const NEXT_AT = 8;
const VULKAN_1_2 = (1 << 22) | (2 << 12);
const KIND_CPU = 4;
const HEAP_IS_LOCAL = 1;

/**
 * Physical devices in the order of the Vulkan loader, which a Dawn device opened by the same process also sees.
 *
 * @throws when there is no Vulkan loader on this machine, or it cannot start.
 */
export function physicalDevices(): PhysicalDevice[] {
  const vulkan = loadVulkan();
  const application = structure(APPLICATION_INFO);
  application.setUint32(APPLICATION_INFO.apiVersionAt, VULKAN_1_2, true);
  const create = structure(INSTANCE_CREATE_INFO);
  create.setBigUint64(INSTANCE_CREATE_INFO.applicationAt, addressOf(application), true);
  const made = new BigUint64Array(1);
  const code = vulkan.createInstance(addressOf(create), 0, addressOf(made));
  if (code !== 0) throw new Error(`the Vulkan loader could not start (vkCreateInstance: ${code})`);
  const instance = made[0]!;
  try {
    const count = new Uint32Array(1);
    vulkan.enumerate(instance, addressOf(count), 0);
    const handles = new BigUint64Array(count[0]!);
    vulkan.enumerate(instance, addressOf(count), addressOf(handles));
    return [...handles].map((handle, place) => describe(vulkan, handle, place));
  } finally {
    vulkan.destroyInstance(instance, 0);
  }
}

type Vulkan = ReturnType<typeof loadVulkan>;

function loadVulkan() {
  const library = koffi.load('libvulkan.so.1');
  const pointer = 'intptr_t';
  return {
    createInstance: library.func('vkCreateInstance', 'int', [pointer, pointer, pointer]),
    destroyInstance: library.func('vkDestroyInstance', 'void', ['uint64_t', pointer]),
    enumerate: library.func('vkEnumeratePhysicalDevices', 'int', ['uint64_t', pointer, pointer]),
    extensions: library.func('vkEnumerateDeviceExtensionProperties', 'int', [
      'uint64_t',
      pointer,
      pointer,
      pointer,
    ]),
    properties: library.func('vkGetPhysicalDeviceProperties2', 'void', ['uint64_t', pointer]),
    memory: library.func('vkGetPhysicalDeviceMemoryProperties2', 'void', ['uint64_t', pointer]),
  };
}

function describe(vulkan: Vulkan, handle: bigint, place: number): PhysicalDevice {
  const extensions = extensionNames(vulkan, handle);
  const pci = structure(PCI_BUS_INFO);
  const id = structure(ID_PROPERTIES, extensions.has('VK_EXT_pci_bus_info') ? pci : undefined);
  const properties = structure(PROPERTIES_2, id);
  vulkan.properties(handle, addressOf(properties));
  const uuid = Buffer.from(id.buffer, ID_PROPERTIES.uuidAt, ID_PROPERTIES.uuidBytes).toString('hex');
  return {
    place,
    name: text(properties, PROPERTIES_2.nameAt, PROPERTIES_2.nameBytes),
    vendor: properties.getUint32(PROPERTIES_2.vendorAt, true),
    device: properties.getUint32(PROPERTIES_2.deviceAt, true),
    driver: properties.getUint32(PROPERTIES_2.driverAt, true),
    software: properties.getUint32(PROPERTIES_2.kindAt, true) === KIND_CPU,
    uuid,
    ...(extensions.has('VK_EXT_pci_bus_info') ? { pci: pciAddress(pci) } : {}),
    heaps: memoryHeaps(vulkan, handle, extensions.has('VK_EXT_memory_budget')),
  };
}

function extensionNames(vulkan: Vulkan, handle: bigint): Set<string> {
  const count = new Uint32Array(1);
  vulkan.extensions(handle, 0, addressOf(count), 0);
  const list = new DataView(new ArrayBuffer(EXTENSION.bytes * count[0]!));
  vulkan.extensions(handle, 0, addressOf(count), addressOf(list));
  return new Set(
    Array.from({ length: count[0]! }, (_, i) => text(list, i * EXTENSION.bytes, EXTENSION.nameBytes)),
  );
}

function pciAddress(info: DataView): string {
  const [domain, bus, device, unit] = [0, 4, 8, 12].map((at) =>
    info.getUint32(PCI_BUS_INFO.addressAt + at, true).toString(16),
  ) as [string, string, string, string];
  return `${domain.padStart(4, '0')}:${bus.padStart(2, '0')}:${device.padStart(2, '0')}.${unit}`;
}

function memoryHeaps(vulkan: Vulkan, handle: bigint, hasBudget: boolean): MemoryHeap[] {
  const budget = structure(MEMORY_BUDGET);
  const memory = structure(MEMORY_PROPERTIES_2, hasBudget ? budget : undefined);
  vulkan.memory(handle, addressOf(memory));
  const bytes = (view: DataView, at: number): number => Number(view.getBigUint64(at, true));
  return Array.from({ length: memory.getUint32(MEMORY_PROPERTIES_2.heapCountAt, true) }, (_, i) => {
    const at = MEMORY_PROPERTIES_2.heapsAt + i * MEMORY_PROPERTIES_2.heapBytes;
    const flags = memory.getUint32(at + MEMORY_PROPERTIES_2.heapFlagsAt, true);
    return {
      bytes: bytes(memory, at),
      local: (flags & HEAP_IS_LOCAL) !== 0,
      ...(hasBudget
        ? {
            budgetBytes: bytes(budget, MEMORY_BUDGET.budgetAt + i * 8),
            usedBytes: bytes(budget, MEMORY_BUDGET.usageAt + i * 8),
          }
        : {}),
    };
  });
}

/** A zeroed Vulkan structure that says its type and what is chained to it. */
function structure(
  { type, bytes }: { readonly type: number; readonly bytes: number },
  next?: DataView,
): DataView {
  const view = new DataView(new ArrayBuffer(bytes));
  view.setUint32(0, type, true);
  if (next !== undefined) view.setBigUint64(NEXT_AT, addressOf(next), true);
  return view;
}

function addressOf(view: ArrayBufferView): bigint {
  return BigInt(koffi.address(view.buffer));
}

function text(view: DataView, at: number, bytes: number): string {
  const raw = Buffer.from(view.buffer, at, bytes);
  return raw.subarray(0, raw.indexOf(0)).toString();
}
