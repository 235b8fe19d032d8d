/** What goes to the device with a batch, and what is read back. */

import type { ProgramBuffers } from './buffers.ts';
import type { Device } from './device.ts';
import { elementCount, type HostTensor, type TypedArray } from './host-tensor.ts';
import { type Program, type ProgramOutput, piecesOf, rounds, type Share } from './program.ts';
import { byteLength } from './tensor.ts';

/** A program in the memory of a device. */
export interface ProgramMemory {
  readonly device: Device;
  readonly program: Program;
  readonly buffers: ProgramBuffers;
}

type Inputs = Readonly<Record<string, TypedArray>>;

/** @throws when an input is missing or has the wrong number of values. */
export function checkInputs(program: Pick<Program, 'inputs'>, inputs: Inputs): void {
  for (const { name, shape } of program.inputs) {
    const values = inputs[name];
    if (values === undefined)
      throw new Error(
        `input ${name} is missing; the program needs ${program.inputs.map((input) => input.name).join(', ')}`,
      );
    const expected = elementCount(shape);
    if (values.length !== expected)
      throw new Error(
        `input ${name}: ${values.length} values for shape [${shape.join(', ')}], which holds ${expected}`,
      );
  }
}

/** Uploads the rows of one leaf, or where leaves share a sequence, of that sequence. */
export function uploadShare(
  { device, program, buffers }: ProgramMemory,
  inputs: Inputs,
  { share, set }: { readonly share: number; readonly set: number },
): void {
  for (const { name, slot } of program.inputs) {
    const values = inputs[name]!;
    const rows = values.length / (program.leaves / program.leavesPerSequence);
    const own = values.subarray(share * rows, (share + 1) * rows) as Uint8Array;
    device.write(buffers.of(slot, set), 0, new Uint8Array(own.buffer, own.byteOffset, own.byteLength));
  }
}

/** Outputs after a run: whole tensors, or the pieces of these shares (see `Executor.outputs`). */
export async function readOutputs(
  { device, program, buffers }: ProgramMemory,
  shares: readonly Share[],
  names: readonly string[] = program.outputs.map(({ name }) => name),
): Promise<Record<string, HostTensor>> {
  const outputs = names.map((name) => outputOf(program, name));
  const pieces = outputs.map((output) => piecesOf(output, shares));
  const parts = outputs.flatMap((output, i) => {
    const buffer = buffers.of(output.slot, 0);
    const bytes = byteLength({ shape: output.shape, dtype: 'f32' });
    if (output.layout === 'whole') return [{ buffer, bytes }];
    const piece = output.layout === 'partial' ? bytes : bytes / piecesOfBatch(program, output);
    return pieces[i]!.map((index) => ({ buffer, offset: index * piece, bytes: piece }));
  });
  const read = await device.read(parts);
  return Object.fromEntries(
    outputs.map((output, i): [string, HostTensor] => {
      const own = read.splice(0, output.layout === 'whole' ? 1 : pieces[i]!.length);
      const shape = shapeOf(program, output, pieces[i]!.length);
      return [output.name, { shape, dtype: 'f32', data: new Float32Array(join(own).buffer) }];
    }),
  );
}

function outputOf({ outputs }: Program, name: string): ProgramOutput {
  const output = outputs.find((candidate) => candidate.name === name);
  if (output !== undefined) return output;
  throw new Error(`no output is called '${name}'; there are ${outputs.map((o) => o.name).join(', ')}`);
}

function shapeOf(program: Program, { shape, layout }: ProgramOutput, pieces: number): readonly number[] {
  if (layout === 'whole') return shape;
  if (layout === 'partial') return [pieces, ...shape];
  return [(shape[0]! * pieces) / piecesOfBatch(program, { layout }), ...shape.slice(1)];
}

/** Pieces that the rows of a batch lie in. */
function piecesOfBatch(program: Program, { layout }: Pick<ProgramOutput, 'layout'>): number {
  return layout === 'batch' ? program.leaves : rounds(program).count;
}

/** The pieces one after another, in memory of their own. */
function join(pieces: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(pieces.reduce((total, { length }) => total + length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}
