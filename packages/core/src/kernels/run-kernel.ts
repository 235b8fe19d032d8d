/** Runs one `KernelBody` on a device the way the compiler wraps it: for tests and measurements. */
import { create, globals } from 'webgpu';
import type { KernelBody } from '../kernel.ts';

/** A device with default limits, without the library around it. */
export interface RawDevice {
  readonly device: GPUDevice;
  close(): void;
}

/** @throws when there is no adapter. */
export async function openRawDevice(): Promise<RawDevice> {
  Object.assign(globalThis, globals);
  let gpu: GPU | undefined = create([]); // kept: the native instance dies with this object
  const adapter = await gpu.requestAdapter();
  if (!adapter)
    throw new Error('no WebGPU adapter; install a Vulkan driver, for example mesa-vulkan-drivers');
  const device = await adapter.requestDevice();
  return {
    device,
    close: () => {
      device.destroy();
      gpu = undefined;
    },
  };
}

/** The largest dispatch in one dimension that every device allows is 65,535. */
const FOLD = 32_768;

/** The module around a body: f32 storage buffers for the inputs, in order, then the output. */
export function kernelModule(kernel: KernelBody, inputs: readonly string[]): string {
  const folded = kernel.workgroups > FOLD;
  const bindings = inputs.map((name, i) => {
    const [suffix, type] = kernel.vec4?.includes(name) === true ? ['4', 'vec4f'] : ['', 'f32'];
    return `@group(0) @binding(${i}) var<storage, read> ${name}: array<${type}>;
fn load${suffix}_${name}(i: u32) -> ${type} { return ${name}[i]; }`;
  });
  const enables = kernel.enables ?? [];
  const subgroup = enables.includes('subgroups') ? ', @builtin(subgroup_id) subgroup: u32' : '';
  return `${enables.map((name) => `enable ${name};`).join(' ')}
${bindings.join('\n')}
@group(0) @binding(${inputs.length}) var<storage, read_write> y: array<f32>;
fn store(i: u32, v: f32) { y[i] = v; }
${kernel.declarations ?? ''}
@compute @workgroup_size(${kernel.workgroupSize})
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32${subgroup}) {
let wg = ${folded ? `min(id.y * ${FOLD}u + id.x, ${kernel.workgroups - 1}u)` : 'id.x'};
${kernel.body}
}`;
}

/** A kernel with its operands, to be dispatched any number of times. */
export interface PreparedKernel {
  /** Encodes and submits one dispatch: of all workgroups, or the first so many. */
  dispatch(workgroups?: number): void;
  /** The output so far. */
  read(): Promise<Float32Array>;
}

/** What kernels read and write on a device. */
export interface Operands {
  /** In the order of the bindings; the output comes after them. */
  readonly names: readonly string[];
  readonly buffers: readonly GPUBuffer[];
  readonly output: GPUBuffer;
  close(): void;
}

/** Uploads inputs, in the order of the bindings, and makes an output of zeros. */
export function createOperands(
  device: GPUDevice,
  inputs: Readonly<Record<string, Float32Array<ArrayBuffer>>>,
  outputElements: number,
): Operands {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const buffers = Object.values(inputs).map((values) => {
    const buffer = device.createBuffer({ size: values.byteLength, usage });
    device.queue.writeBuffer(buffer, 0, values);
    return buffer;
  });
  const output = device.createBuffer({ size: outputElements * 4, usage });
  const close = (): void => {
    for (const buffer of [...buffers, output]) buffer.destroy();
  };
  return { names: Object.keys(inputs), buffers, output, close };
}

/** Compiles `kernel` for `device` with operands of its own, which `close` frees. */
export async function prepareKernel(
  device: GPUDevice,
  kernel: KernelBody,
  inputs: Readonly<Record<string, Float32Array<ArrayBuffer>>>,
  outputElements: number,
): Promise<PreparedKernel & { close(): void }> {
  const operands = createOperands(device, inputs, outputElements);
  return { ...(await prepareOn(device, kernel, operands)), close: operands.close };
}

/** Compiles `kernel` for `device` to work on operands that it may share with others. */
export async function prepareOn(
  device: GPUDevice,
  kernel: KernelBody,
  { names, buffers, output }: Operands,
): Promise<PreparedKernel> {
  const module = device.createShaderModule({ code: kernelModule(kernel, names) });
  const pipeline = await device.createComputePipelineAsync({
    layout: 'auto',
    compute: { module, entryPoint: 'main' },
  });
  const { size } = output;
  const entries = [...buffers, output].map((buffer, binding) => ({ binding, resource: { buffer } }));
  const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
  const dispatch = (workgroups = kernel.workgroups): void => {
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass({ label: 'run-kernel' });
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(Math.min(workgroups, FOLD), Math.ceil(workgroups / FOLD));
    pass.end();
    device.queue.submit([encoder.finish()]);
  };
  const read = async (): Promise<Float32Array> => {
    const staging = device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
    const encoder = device.createCommandEncoder();
    encoder.copyBufferToBuffer(output, 0, staging, 0, size);
    device.queue.submit([encoder.finish()]);
    await staging.mapAsync(GPUMapMode.READ);
    const values = new Float32Array(staging.getMappedRange()).slice();
    staging.destroy();
    return values;
  };
  return { dispatch, read };
}
