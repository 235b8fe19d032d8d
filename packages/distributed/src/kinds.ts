/** Programs for devices of several kinds: each has kernels of its own, of the same step, and what ranks exchange is the same. */
import { createHash } from 'node:crypto';
import {
  type BuildOptions,
  type HandOver,
  kernelTarget,
  type Program,
  type StageProgram,
} from '@cohesin/core';
import type { Mesh } from './mesh.ts';

/** What programs are fitted to of a device. */
export type Fit = Required<Pick<BuildOptions, 'target' | 'bindingLimit'>>;

/** What `build` makes for the device of each rank: once for each kind of them. */
export function buildEach<T>(
  { infos }: Mesh,
  { target, bindingLimit, precision }: BuildOptions,
  build: (fit: Fit) => T,
): T[] {
  const built = new Map<string, T>();
  return infos.map((info) => {
    const fit = {
      target: target ?? kernelTarget(info, precision),
      bindingLimit: bindingLimit ?? info.maxBindingBytes,
    };
    const kind = JSON.stringify(fit);
    if (!built.has(kind)) built.set(kind, build(fit));
    return built.get(kind)!;
  });
}

/**
 * Programs for several kinds of devices, each a list with one for each rank or stage, must exchange the same tensors.
 *
 * @throws when they do not, naming the first program and what of it differs.
 */
export function checkExchanges(kinds: Iterable<readonly (Program | StageProgram)[]>): void {
  const [first = [], ...others] = new Set(kinds);
  for (const other of others) {
    for (const [i, program] of first.entries()) {
      const [a, b] = [exchanged(program), exchanged(other[i]!)];
      const differing = Object.keys(a).find((what) => JSON.stringify(a[what]) !== JSON.stringify(b[what]));
      if (differing !== undefined)
        throw new Error(
          `program ${i} for one kind of device has the ${differing} ${JSON.stringify(a[differing])}, for another ${JSON.stringify(b[differing])}; they cannot exchange tensors: train on devices that are alike`,
        );
    }
  }
}

/** What a rank that runs a program gives to others and takes from them, in order. */
function exchanged(program: Program & Partial<StageProgram>): Readonly<Record<string, unknown>> {
  const { segments, update, sums, kept, updateShare, outputs, actions, links, peaks } = program;
  const sizes = (lists: readonly (readonly HandOver[])[]): unknown =>
    lists.map((list) => list.map(({ from, bytes }) => [from, bytes]));
  return {
    'gathered pieces': segments.map(({ combine }) =>
      combine.map(({ bytesPerLeaf, parts }) => [bytesPerLeaf, parts]),
    ),
    'gathered values of sequences': kept.map(({ bytes }) => bytes),
    'segments of the update': update,
    'gradient sums': sums?.tensors,
    'values handed over in the update': sizes(program.handOvers),
    'parameters given': [updateShare?.owners, updateShare?.parameters, program.sharedParameters],
    outputs: outputs.map(({ name, layout, parts }) => [name, layout, parts]),
    actions,
    links: links?.map(({ tensors, ...link }) => [link, tensors.map(({ bytes, parts }) => [bytes, parts])]),
    peaks,
  };
}

/** That of the programs; where kinds of devices have kernels of their own, a hash of all of theirs. */
export function mixedBitsId(programs: Iterable<Pick<Program, 'bitsId'>>): string {
  const ids = [...new Set([...programs].map(({ bitsId }) => bitsId))];
  return ids.length === 1 ? ids[0]! : createHash('sha256').update(ids.sort().join('\n')).digest('hex');
}
