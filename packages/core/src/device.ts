import { create, globals } from 'webgpu';
import type { KernelTarget, SubgroupMatrices } from './kernel.ts';
import { foretell, installAdaptivePolling, restartPolling } from './polling.ts';
import type { Precision } from './scope.ts';

/** What a device says about itself; part of the fingerprint that ranks compare. */
export interface DeviceInfo {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  readonly description: string;
  /** A software driver on the CPU. */
  readonly software: boolean;
  readonly subgroupSizes: readonly [min: number, max: number];
  /** f16 matrices that a subgroup multiplies with sums in f32; none where subgroups differ in size. */
  readonly subgroupMatrices: readonly SubgroupMatrices[];
  readonly features: readonly string[];
  readonly maxBindingBytes: number;
  readonly maxBufferBytes: number;
}

/** f16 is blocklisted on NVIDIA's Vulkan driver and subgroup matrices are experimental: both need a toggle. */
export const INSTANCE_FLAGS: string[] = [
  'enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia',
  'disable-dawn-features=timestamp_quantization,lazy_clear_resource_on_first_use',
];
export const WANTED_FEATURES: readonly string[] = [
  'timestamp-query',
  'shader-f16',
  'subgroups',
  'subgroup-size-control',
  'chromium-experimental-subgroup-matrix',
];
export const RAISED_LIMITS = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxStorageBuffersPerShaderStage',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupSizeX',
  'maxComputeWorkgroupStorageSize',
  'maxImmediateSize',
] as const;

/** How a kernel uses what it is bound to. */
export type BindingAccess = 'read' | 'read_write' | 'uniform';

const BINDING_TYPES: Readonly<Record<BindingAccess, GPUBufferBindingType>> = {
  read: 'read-only-storage',
  read_write: 'storage',
  uniform: 'uniform',
};

/** Bytes moved between host and device at a time. */
export const TRANSFER_BYTES: number = 2 ** 26;

/** Bytes of shared memory uploaded at a time: a copy of so many stays in a processor's cache. */
const SHARED_BYTES = 2 ** 18;

/** A range of a buffer. */
export interface BufferRange {
  readonly buffer: GPUBuffer;
  readonly offset?: number;
  readonly bytes: number;
}

/** A range to read back, and the host memory it is copied to, which may be shared. */
export interface ReadInto extends BufferRange {
  readonly to: Uint8Array;
}

/** One GPU, or a software driver: owns its buffers and compiled pipelines. Close it when done. */
export class Device {
  readonly info: DeviceInfo;
  /** Dispatches so far that bound only part of a tensor. */
  windowDispatches = 0;
  /** Objects made on the GPU so far. Once every arrangement of a program's state has run, its runs make none. */
  readonly created = { buffers: 0, bindGroups: 0, pipelines: 0 };
  private readonly gpu: GPUDevice;
  /** Dawn crashes when the object behind its devices is collected, so it is held here. */
  private readonly instance: GPU;
  private readonly pipelines = new Map<string, Promise<GPUComputePipeline>>();
  private readonly layouts = new Map<string, { group: GPUBindGroupLayout; pipeline: GPUPipelineLayout }>();
  private readonly staging = new Map<number, GPUBuffer[]>();
  /** What goes from shared memory, which Dawn cannot read, to the device. */
  private readonly upload = new Uint8Array(SHARED_BYTES);
  private readonly errors: string[] = [];
  private bytes = 0;
  private lost: string | undefined;

  private constructor(instance: GPU, adapter: GPUAdapter, gpu: GPUDevice, bindingLimit?: number) {
    this.instance = instance;
    this.gpu = gpu;
    this.info = describe(adapter, gpu, bindingLimit);
    gpu.addEventListener('uncapturederror', (event) => {
      event.preventDefault();
      this.errors.push((event as GPUUncapturedErrorEvent).error.message);
    });
    void gpu.lost.then(({ reason, message }) => {
      this.lost = `${reason}: ${message}`;
    });
  }

  /**
   * Opens the adapter Dawn ranks first, with every limit and feature it grants. `bindingLimit` lowers the bytes of one
   * binding, for tests of what is computed in windows.
   *
   * @throws when no Vulkan, Metal or D3D12 adapter answers, with how to get a software one.
   */
  static async open({ bindingLimit }: { readonly bindingLimit?: number } = {}): Promise<Device> {
    const { instance, adapter, gpu } = await openGpu();
    return new Device(instance, adapter, gpu, bindingLimit);
  }

  /** Bytes of all buffers that are open now. */
  get allocatedBytes(): number {
    return this.bytes;
  }

  get queue(): GPUQueue {
    return this.gpu.queue;
  }

  /** A storage buffer, or of another use; what it holds is undefined until it is written. @throws when it exceeds what the adapter allows in one buffer. */
  createBuffer(bytes: number, label: string, use: number = GPUBufferUsage.STORAGE): GPUBuffer {
    if (bytes > this.info.maxBufferBytes) {
      throw new Error(
        `${label}: needs ${bytes} bytes in one buffer but ${this.info.description} has at most ${this.info.maxBufferBytes}; use smaller leaves or a device with a higher limit`,
      );
    }
    const size = Math.max(bytes, 4);
    const { COPY_SRC, COPY_DST } = GPUBufferUsage;
    const buffer = this.newBuffer({ size, usage: use | COPY_SRC | COPY_DST, label });
    this.check(label);
    this.bytes += size;
    return buffer;
  }

  destroyBuffer(buffer: GPUBuffer): void {
    this.bytes -= buffer.size;
    buffer.destroy();
  }

  /** The pipeline of a kernel; compiled once per text. `access` lists the bindings' access modes. */
  pipeline(code: string, access: readonly BindingAccess[], label: string): Promise<GPUComputePipeline> {
    const key = `${access.join()}\n${code}`;
    const known = this.pipelines.get(key);
    if (known !== undefined) return known;
    const compiled = this.compile(code, access, label);
    this.pipelines.set(key, compiled);
    return compiled;
  }

  bindGroup(
    access: readonly BindingAccess[],
    entries: readonly GPUBufferBinding[],
    label: string,
  ): GPUBindGroup {
    const group = this.gpu.createBindGroup({
      layout: this.layout(access).group,
      entries: entries.map((resource, binding) => ({ binding, resource })),
      label,
    });
    this.created.bindGroups++;
    this.check(label);
    return group;
  }

  encoder(label: string): GPUCommandEncoder {
    return this.gpu.createCommandEncoder({ label });
  }

  /** Hands commands to the device. @throws any GPU error they raised, with the labels of what was encoded. */
  submit(encoder: GPUCommandEncoder): void {
    const commands = encoder.finish();
    this.check('encoding');
    this.gpu.queue.submit([commands]);
    restartPolling();
    this.check('submitting');
  }

  /** Uploads bytes, a piece at a time: Dawn keeps a copy until the device has them. What lacks to a multiple of 4 is 0. */
  write(buffer: GPUBuffer, offset: number, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += TRANSFER_BYTES) {
      this.writeAtOnce(buffer, offset + at, bytes.subarray(at, at + TRANSFER_BYTES));
      if (at > 0) this.gpu.queue.submit([]);
    }
  }

  private writeAtOnce(buffer: GPUBuffer, offset: number, bytes: Uint8Array): void {
    const { queue } = this.gpu;
    if (isPrivate(bytes) && bytes.length % 4 === 0) {
      queue.writeBuffer(buffer, offset, bytes);
      return;
    }
    for (let at = 0; at < bytes.length; at += SHARED_BYTES) {
      const piece = bytes.subarray(at, at + SHARED_BYTES);
      const size = Math.ceil(piece.length / 4) * 4;
      this.upload.set(piece);
      this.upload.fill(0, piece.length, size);
      queue.writeBuffer(buffer, offset + at, this.upload, 0, size);
    }
  }

  /** Copies ranges of buffers to new host memory; `site` as for `stage`. */
  async read(ranges: readonly BufferRange[], site?: object): Promise<Uint8Array<ArrayBuffer>[]> {
    const values = ranges.map(({ bytes }) => new Uint8Array(bytes));
    await this.readInto(
      ranges.map((range, i) => ({ ...range, to: values[i]! })),
      site,
    );
    return values;
  }

  /** Copies ranges of buffers to host memory, a wait for each `TRANSFER_BYTES`. */
  async readInto(parts: readonly ReadInto[], site?: object): Promise<void> {
    let round: ReadInto[] = [];
    let room = TRANSFER_BYTES;
    const finish = async (): Promise<void> => {
      await this.readAtOnce(round, TRANSFER_BYTES - room, site);
      [round, room] = [[], TRANSFER_BYTES];
    };
    for (const { buffer, offset = 0, bytes, to } of parts) {
      for (let at = 0, size = 0; at < bytes; at += size) {
        if (room === 0) await finish();
        size = Math.min(room, bytes - at);
        round.push({ buffer, offset: offset + at, bytes: size, to: to.subarray(at, at + size) });
        room -= size;
      }
    }
    await finish();
  }

  private async readAtOnce(parts: readonly ReadInto[], total: number, site?: object): Promise<void> {
    if (total === 0) return;
    const take = await this.stage(parts, site);
    take(parts.map(({ to }) => to));
  }

  /**
   * Has the device copy ranges, of `TRANSFER_BYTES` at most, before any work that is submitted later. Gives, once they are
   * copied, what takes them to host memory, of which each range has its own; it is to be called once. Waits with the same
   * `site` are taken to be equally long.
   */
  async stage(
    ranges: readonly BufferRange[],
    site: object = ranges[0]?.buffer ?? this,
  ): Promise<(to: readonly Uint8Array[]) => void> {
    const staging = this.takeStaging(ranges.reduce((total, { bytes }) => total + bytes, 0));
    const encoder = this.encoder('read');
    let at = 0;
    for (const { buffer, offset = 0, bytes } of ranges) {
      encoder.copyBufferToBuffer(buffer, offset, staging, at, bytes);
      at += bytes;
    }
    this.submit(encoder);
    await foretell(site, staging.mapAsync(GPUMapMode.READ));
    this.check('reading back');
    return (to) => {
      const all = new Uint8Array(staging.getMappedRange());
      let from = 0;
      for (const [i, { bytes }] of ranges.entries()) {
        to[i]!.set(all.subarray(from, from + bytes));
        from += bytes;
      }
      staging.unmap();
      this.returnStaging(staging);
    };
  }

  querySet(count: number): GPUQuerySet | undefined {
    return this.gpu.features.has('timestamp-query')
      ? this.gpu.createQuerySet({ type: 'timestamp', count })
      : undefined;
  }

  /** A buffer that timestamps resolve into. */
  queryBuffer(bytes: number): GPUBuffer {
    return this.newBuffer({
      size: bytes,
      usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
    });
  }

  /** Waits until all submitted work is done. */
  async idle(): Promise<void> {
    restartPolling();
    await this.gpu.queue.onSubmittedWorkDone();
    this.check('finishing');
  }

  /** @throws if the device raised an error or was lost; an error is never left for later steps to build on. */
  check(doing: string): void {
    const messages = this.errors.splice(0);
    if (messages.length > 0) throw new Error(`GPU error while ${doing}: ${messages.join('; ')}`);
    if (this.lost !== undefined) throw new Error(`GPU lost while ${doing}: ${this.lost}`);
  }

  /** Waits for the device and frees everything on it. */
  async close(): Promise<void> {
    await this.gpu.queue.onSubmittedWorkDone();
    this.gpu.destroy();
    await this.gpu.lost;
    void this.instance;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private async compile(
    code: string,
    access: readonly BindingAccess[],
    label: string,
  ): Promise<GPUComputePipeline> {
    const module = this.gpu.createShaderModule({ code, label });
    const problems = (await module.getCompilationInfo()).messages.filter(({ type }) => type === 'error');
    if (problems.length > 0) {
      this.errors.splice(0);
      const text = code.split('\n').map((line, i) => `${i + 1}: ${line}`);
      const details = problems.map(
        ({ lineNum, linePos, message }) => `line ${lineNum}:${linePos}: ${message}`,
      );
      throw new Error(`kernel of ${label} does not compile: ${details.join('; ')}\n${text.join('\n')}`);
    }
    const layout = this.layout(access).pipeline;
    this.created.pipelines++;
    return this.gpu.createComputePipelineAsync({ layout, compute: { module, entryPoint: 'main' }, label });
  }

  private newBuffer(descriptor: GPUBufferDescriptor): GPUBuffer {
    this.created.buffers++;
    return this.gpu.createBuffer(descriptor);
  }

  private layout(access: readonly BindingAccess[]): {
    group: GPUBindGroupLayout;
    pipeline: GPUPipelineLayout;
  } {
    const key = access.join();
    const known = this.layouts.get(key);
    if (known !== undefined) return known;
    const group = this.gpu.createBindGroupLayout({
      entries: access.map((mode, binding) => ({
        binding,
        visibility: GPUShaderStage.COMPUTE,
        buffer: { type: BINDING_TYPES[mode] },
      })),
    });
    const descriptor = { bindGroupLayouts: [group], immediateSize: 64 };
    const layout = {
      group,
      pipeline: this.gpu.createPipelineLayout(descriptor as GPUPipelineLayoutDescriptor),
    };
    this.layouts.set(key, layout);
    return layout;
  }

  /** Staging buffers are reused: fresh mapped memory costs page faults. */
  private takeStaging(bytes: number): GPUBuffer {
    const size = 2 ** Math.ceil(Math.log2(Math.max(bytes, 256)));
    const free = this.staging.get(size)?.pop();
    return (
      free ??
      this.newBuffer({
        size,
        usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
        label: 'staging',
      })
    );
  }

  private returnStaging(buffer: GPUBuffer): void {
    const free = this.staging.get(buffer.size) ?? [];
    free.push(buffer);
    this.staging.set(buffer.size, free);
  }
}

const isPrivate = (bytes: Uint8Array): bytes is Uint8Array<ArrayBuffer> =>
  bytes.buffer instanceof ArrayBuffer;

/** Dawn's own objects. It crashes when the instance is collected before its devices. */
interface OpenGpu {
  readonly instance: GPU;
  readonly adapter: GPUAdapter;
  readonly gpu: GPUDevice;
}

/** Opens the adapter Dawn ranks first, with every limit and feature it grants. @throws as `Device.open`. */
export async function openGpu(): Promise<OpenGpu> {
  Object.assign(globalThis, globals);
  installAdaptivePolling();
  const instance = create(INSTANCE_FLAGS);
  const adapter = await instance.requestAdapter({ powerPreference: 'high-performance' });
  if (adapter === null) {
    throw new Error(
      'no GPU adapter answered. Install a GPU driver, or a software one: Mesa ≥ 25.0.7 (Debian: apt-get install mesa-vulkan-drivers; Debian 12 needs it from bookworm-backports)',
    );
  }
  const limits: Readonly<Partial<Record<(typeof RAISED_LIMITS)[number], number>>> = adapter.limits;
  const requiredLimits = Object.fromEntries(
    RAISED_LIMITS.flatMap((name) => {
      const limit = limits[name];
      return limit === undefined ? [] : [[name, limit] as const];
    }),
  );
  const requiredFeatures = WANTED_FEATURES.filter((name) => adapter.features.has(name)) as GPUFeatureName[];
  return { instance, adapter, gpu: await adapter.requestDevice({ requiredFeatures, requiredLimits }) };
}

/**
 * What kernels for a device are written for. Matrix units multiply f16, so they are used in mixed precision only.
 *
 * @throws when mixed precision is asked of a device without shader-f16.
 */
export function kernelTarget(info: DeviceInfo, precision: Precision = 'f32'): KernelTarget {
  const { software, features, description, subgroupMatrices: listed } = info;
  if (precision === 'mixed' && !features.includes('shader-f16'))
    throw new Error(`${description} has no shader-f16, which mixed precision needs; use precision: 'f32'`);
  if (software) return { kind: 'software' };
  const [matrices] = precision === 'mixed' ? listed : [];
  return matrices === undefined ? { kind: 'gpu' } : { kind: 'tensor-core', matrices };
}

/** What Dawn says about an adapter beyond the standard. */
interface AdapterSizes {
  readonly subgroupMinSize?: number;
  readonly subgroupMaxSize?: number;
  readonly isFallbackAdapter?: boolean;
  readonly subgroupMatrixConfigs?: Iterable<{
    readonly M: number;
    readonly N: number;
    readonly K: number;
    readonly componentType: string;
    readonly resultComponentType: string;
  }>;
}

/** The f16 matrices an adapter lists, largest first; none where it may choose the size of a subgroup. */
export function subgroupMatrices(adapter: AdapterSizes): readonly SubgroupMatrices[] {
  const { subgroupMinSize, subgroupMaxSize = 0, subgroupMatrixConfigs = [] } = adapter;
  if (subgroupMinSize !== subgroupMaxSize) return [];
  return [...subgroupMatrixConfigs]
    .filter((config) => config.componentType === 'f16' && config.resultComponentType === 'f32')
    .map(({ M: m, N: n, K: k }) => ({ m, n, k, subgroupSize: subgroupMaxSize }))
    .sort((a, b) => b.m * b.n * b.k - a.m * a.n * a.k);
}

/** What a device says about itself; `bindingLimit` lowers the bytes of one binding. */
export function describe(adapter: GPUAdapter, gpu: GPUDevice, bindingLimit?: number): DeviceInfo {
  const { vendor, architecture, device, description } = adapter.info;
  const sizes = adapter.info as AdapterSizes;
  return {
    vendor,
    architecture,
    device,
    description: description === '' ? device : description,
    software: sizes.isFallbackAdapter === true,
    subgroupSizes: [sizes.subgroupMinSize ?? 0, sizes.subgroupMaxSize ?? 0],
    subgroupMatrices: subgroupMatrices(sizes),
    features: [...gpu.features].sort(),
    maxBindingBytes: Math.min(
      bindingLimit ?? Number.POSITIVE_INFINITY,
      gpu.limits.maxStorageBufferBindingSize,
    ),
    maxBufferBytes: gpu.limits.maxBufferSize,
  };
}
