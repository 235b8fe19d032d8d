import type { Device } from './device.ts';
import { elementCount, type HostTensor } from './host-tensor.ts';
import type { ProgramState } from './program.ts';
import { sameShape, shapeText } from './tensor.ts';

interface Entry {
  readonly shape: readonly number[];
  current: GPUBuffer;
  next: GPUBuffer | undefined;
  /** Changes with every commit; bind groups are cached for both arrangements. */
  turned: boolean;
}

/**
 * Parameters, running statistics and optimizer moments on one device, by name. What a step may still drop is written
 * beside the old values, and `commit` makes all of it visible together; the update, which comes after the decision, is
 * written over them. So a step that is dropped leaves no trace.
 */
export class StateStore {
  private readonly device: Device;
  private readonly entries = new Map<string, Entry>();

  constructor(device: Device) {
    this.device = device;
  }

  /** Makes room for a program's state. @throws when a name is in use with another shape. */
  allocate(state: readonly ProgramState[]): void {
    for (const { name, shape, next } of state) {
      const entry = this.entries.get(name) ?? this.add(name, shape);
      if (!sameShape(entry.shape, shape)) {
        throw new Error(
          `state ${name} is ${shapeText(entry.shape)} here but ${shapeText(shape)} in the program; they must be equal`,
        );
      }
      if (next !== undefined)
        entry.next ??= this.device.createBuffer(4 * elementCount(shape), `${name} (next)`);
    }
  }

  has(name: string): boolean {
    return this.entries.has(name);
  }

  buffer(name: string): GPUBuffer {
    return this.entry(name).current;
  }

  nextBuffer(name: string): GPUBuffer {
    return this.entry(name).next!;
  }

  /** Whether current and next have changed places an odd number of times. */
  turned(name: string): boolean {
    return this.entry(name).turned;
  }

  /** Makes the next values of these names the current ones. */
  commit(names: readonly string[]): void {
    for (const name of names) {
      const entry = this.entry(name);
      const { current } = entry;
      entry.current = entry.next!;
      entry.next = current;
      entry.turned = !entry.turned;
    }
  }

  /** Uploads f32 values. @throws for an unknown name or another shape; nothing is written then. */
  write(values: ReadonlyMap<string, HostTensor>): void {
    for (const [name, { shape }] of values) {
      const entry = this.entry(name);
      if (!sameShape(shape, entry.shape)) {
        throw new Error(
          `${name}: the value is ${shapeText(shape)} but the model has ${shapeText(entry.shape)}`,
        );
      }
    }
    for (const [name, { data }] of values) {
      const copy = new Float32Array(data as Float32Array); // not shared memory
      this.device.write(this.entry(name).current, 0, new Uint8Array(copy.buffer));
    }
    this.device.check('writing state');
  }

  /** Downloads state, all of it by default, in name order. */
  async read(names: readonly string[] = [...this.entries.keys()].sort()): Promise<Map<string, HostTensor>> {
    const parts = names.map((name) => ({
      buffer: this.buffer(name),
      bytes: 4 * elementCount(this.entry(name).shape),
    }));
    const values = await this.device.read(parts);
    return new Map(
      names.map((name, i) => [
        name,
        { shape: this.entry(name).shape, dtype: 'f32', data: new Float32Array(values[i]!.buffer) },
      ]),
    );
  }

  close(): void {
    for (const { current, next } of this.entries.values()) {
      this.device.destroyBuffer(current);
      if (next !== undefined) this.device.destroyBuffer(next);
    }
    this.entries.clear();
  }

  private add(name: string, shape: readonly number[]): Entry {
    const current = this.device.createBuffer(4 * elementCount(shape), name);
    const entry = { shape, current, next: undefined, turned: false };
    this.entries.set(name, entry);
    return entry;
  }

  private entry(name: string): Entry {
    const entry = this.entries.get(name);
    if (entry === undefined)
      throw new Error(
        `no state is called '${name}'; there are ${[...this.entries.keys()].slice(0, 20).join(', ')}`,
      );
    return entry;
  }
}
