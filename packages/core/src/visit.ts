/** Running kernel by kernel, to look at what each writes as soon as it has. */
import type { Dispatcher, For, Frame, Prepared, PreparedSegment } from './dispatcher.ts';
import type { ProgramMemory } from './inputs-outputs.ts';
import type { Place } from './not-finite.ts';
import type { Publish, Step } from './program.ts';

/** A kernel that has just run. */
export interface Visited {
  readonly step: Step;
  readonly place: Place;
  /** Whether it ran for all leaves of its round together, as on every rank, and not for the leaf of its place. */
  readonly shared: boolean;
  /** Bytes of the whole tensor that it wrote; none while windows of it are to come, and none of unfinished gradient sums. */
  read(): Promise<Uint8Array<ArrayBuffer> | undefined>;
}

/** Is called after each kernel, before the next one runs: a run that is visited is slow, and has the same bits. */
export type Visit = (visited: Visited) => Promise<void>;

/** What runs a program's kernels, and where their tensors are. */
export interface Visiting {
  readonly dispatcher: Dispatcher;
  readonly memory: ProgramMemory;
  readonly frame: Frame;
  readonly visit: Visit;
}

/** As `Dispatcher.segment`. */
export async function visitSegment(
  visiting: Visiting,
  { once, leaves, segment }: PreparedSegment,
  own: readonly For[],
  [round, index]: Place,
): Promise<void> {
  const first = own[0]!.leaf;
  await visitOnce(visiting, { once, segment }, { ...own[0]!, leaf: 0 }, [round, index, first]);
  for (const of of own) {
    await visitSteps(visiting, leaves.get(of.leaf)!, of, { place: [round, index, of.leaf], shared: false });
    publish(visiting, segment.publish, of);
  }
}

/** What runs once. */
export async function visitOnce(
  visiting: Visiting,
  { once, segment }: Pick<PreparedSegment, 'once' | 'segment'>,
  of: For,
  place: Place,
): Promise<void> {
  if (once.length === 0) return;
  await visitSteps(visiting, once, of, { place, shared: true });
  publish(visiting, segment.publishOnce, of);
}

async function visitSteps(
  { dispatcher, memory, frame, visit }: Visiting,
  steps: readonly Prepared[],
  of: For,
  at: Pick<Visited, 'place' | 'shared'>,
): Promise<void> {
  for (const prepared of steps) {
    const { step } = prepared;
    submit(memory, (encoder) => dispatcher.pass(encoder, [prepared], frame, of));
    await visit({ step, ...at, read: () => readWritten(memory, step, of.set) });
  }
}

function publish({ dispatcher, memory }: Visiting, pieces: readonly Publish[], of: For): void {
  submit(memory, (encoder) => dispatcher.publish(encoder, pieces, of));
}

function submit({ device }: ProgramMemory, encode: (encoder: GPUCommandEncoder) => void): void {
  const encoder = device.encoder('visit');
  encode(encoder);
  device.submit(encoder);
}

/** What a step wrote; see `Visited.read`. */
async function readWritten(
  { device, buffers }: ProgramMemory,
  { label, window, bindings }: Step,
  set: number,
): Promise<Uint8Array<ArrayBuffer> | undefined> {
  if (label.endsWith('add gradient') || (window !== undefined && window.index + 1 < window.count)) return;
  const { slot, offset = 0, bytes = 0 } = window?.output ?? bindings.at(-1)!;
  const [read] = await device.read([{ buffer: buffers.of(slot, set), offset, bytes }]);
  return read!.slice();
}

/** Whether a step writes f16 instead of f32. */
export function isHalf({ window, bindings }: Step): boolean {
  return (window?.output ?? bindings.at(-1)!).half === true;
}
