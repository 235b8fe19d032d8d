import { type Program, rounds, type SlotScope } from './program.ts';

/** Device bytes of a program on a rank that owns `leavesOnRank` leaves of a round, by scope. */
export function programBytes(
  program: Program,
  leavesOnRank: number = rounds(program).leaves,
): Readonly<Record<SlotScope, number>> {
  const bytes = { scratch: 0, leaf: 0, shared: 0, state: 0, next: 0 };
  for (const { scope, bytes: size } of program.slots)
    bytes[scope] += scope === 'leaf' ? size * leavesOnRank : size;
  return bytes;
}

/** The memory plan as text: what takes how much, and the largest buffers, known before anything is allocated. */
export function memoryReport(program: Program, leavesOnRank: number = rounds(program).leaves): string {
  const total = Object.values(programBytes(program, leavesOnRank)).reduce((a, b) => a + b, 0);
  const largest = [...program.slots].sort((a, b) => b.bytes - a.bytes).slice(0, 8);
  const classes = bytesByClass(program, leavesOnRank);
  const line = (bytes: number, text: string): string => `  ${mebibytes(bytes).padStart(12)}  ${text}`;
  return [
    `${program.slots.length} slots, peak ${mebibytes(total)} with ${leavesOnRank} of ${rounds(program).leaves} leaves`,
    ...classes.filter(([, bytes]) => bytes > 0).map(([text, bytes]) => line(bytes, text)),
    'largest slots:',
    ...largest.map(({ bytes, scope, label }) => line(bytes, `${scope.padEnd(8)} ${label}`)),
  ].join('\n');
}

/** Bytes of all slots, divided by what they are for. */
function bytesByClass(program: Program, leavesOnRank: number): (readonly [text: string, bytes: number])[] {
  const { slots, state, sums, inputs, outputs } = program;
  const sized = (indices: Iterable<number>): number =>
    [...new Set(indices)].reduce((total, slot) => {
      const { bytes, scope } = slots[slot]!;
      return total + (scope === 'leaf' ? bytes * leavesOnRank : bytes);
    }, 0);
  const moments = state.filter(({ name }) => name.startsWith('optimizer/'));
  const sumSlots = sums === undefined ? [] : [sums.slot, sums.peakSlot, sums.scaleSlot];
  const hostSlots = [...inputs, ...outputs].map(({ slot }) => slot);
  const known = [...state.map(({ slot }) => slot), ...sumSlots, ...hostSlots];
  const work = slots
    .map((_, slot) => slot)
    .filter((slot) => !known.includes(slot) && slots[slot]!.scope !== 'next');
  const kept = activationBytes(program, leavesOnRank);
  return [
    [
      'weights and statistics',
      sized(state.filter((entry) => !moments.includes(entry)).map(({ slot }) => slot)),
    ],
    ['moments', sized(moments.map(({ slot }) => slot))],
    ['new state, beside the old', sized(state.flatMap(({ next }) => next ?? []))],
    ['gradient sums', sized(sumSlots)],
    ['inputs and outputs', sized(hostSlots)],
    [`activations kept for the backward pass${recomputed(program, leavesOnRank)}`, kept],
    ['working set', sized(work) - kept],
  ];
}

function activationBytes({ activations }: Program, leavesOnRank: number): number {
  return activations === undefined ? 0 : activations.device + activations.leaf * leavesOnRank;
}

function recomputed({ activations }: Program, leavesOnRank: number): string {
  if (activations === undefined || activations.again === 0) return '';
  const { device, leaf } = activations.all;
  return `; ${mebibytes(device + leaf * leavesOnRank)} if ${activations.again} tensors were not computed again`;
}

const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(2)} MiB`;
