import {
  type Activations,
  copiesOf,
  type Program,
  type ProgramState,
  rounds,
  type SlotScope,
} from './program.ts';

/**
 * Device bytes of a program on a rank that owns `leavesOnRank` leaves of a round, by scope; in stages that work on parts of
 * sequences, of `sequences` on their way.
 */
export function programBytes(
  program: Program,
  leavesOnRank: number = rounds(program).leaves,
  sequences = 1,
): Readonly<Record<SlotScope, number>> {
  const bytes = { scratch: 0, leaf: 0, sequence: 0, part: 0, shared: 0, state: 0, next: 0 };
  for (const { scope, bytes: size } of program.slots)
    bytes[scope] += size * copiesOf(scope, leavesOnRank, sequences);
  return bytes;
}

/** Device bytes of a program in all. */
export function totalBytes(program: Program, leavesOnRank?: number, sequences?: number): number {
  return Object.values(programBytes(program, leavesOnRank, sequences)).reduce((a, b) => a + b, 0);
}

/** The memory plan as text: what takes how much, and the largest buffers, known before anything is allocated. */
export function memoryReport(
  program: Program,
  leavesOnRank: number = rounds(program).leaves,
  sequences = 1,
): string {
  const total = totalBytes(program, leavesOnRank, sequences);
  const largest = [...program.slots].sort((a, b) => b.bytes - a.bytes).slice(0, 8);
  const classes = bytesByClass(program, leavesOnRank, sequences);
  const line = (bytes: number, text: string): string => `  ${mebibytes(bytes).padStart(12)}  ${text}`;
  return [
    `${program.slots.length} slots, peak ${mebibytes(total)} with ${leavesOnRank} of ${rounds(program).leaves} leaves`,
    ...classes.filter(([, bytes]) => bytes > 0).map(([text, bytes]) => line(bytes, text)),
    'largest slots:',
    ...largest.map(({ bytes, scope, label }) => line(bytes, `${scope.padEnd(8)} ${label}`)),
  ].join('\n');
}

/** Bytes of all slots, divided by what they are for. */
function bytesByClass(
  program: Program,
  leavesOnRank: number,
  sequences: number,
): (readonly [text: string, bytes: number])[] {
  const { slots, state, sums, inputs, outputs } = program;
  const sized = (indices: Iterable<number>): number =>
    [...new Set(indices)].reduce((total, slot) => {
      const { bytes, scope } = slots[slot]!;
      return total + bytes * copiesOf(scope, leavesOnRank, sequences);
    }, 0);
  const moments = momentsOf(program);
  const sumSlots = sums === undefined ? [] : [sums.slot, sums.peakSlot, sums.scaleSlot];
  const hostSlots = [...inputs, ...outputs].map(({ slot }) => slot);
  const known = [...state.map(({ slot }) => slot), ...sumSlots, ...hostSlots];
  const work = slots
    .map((_, slot) => slot)
    .filter((slot) => !known.includes(slot) && slots[slot]!.scope !== 'next');
  const { activations } = program;
  const keptBytes = ({ device, sequence, leaf }: Omit<Activations, 'all' | 'again'>): number =>
    device + sequence * sequences + leaf * leavesOnRank;
  const kept = activations === undefined ? 0 : keptBytes(activations);
  const again =
    activations === undefined || activations.again === 0
      ? ''
      : `; ${mebibytes(keptBytes(activations.all))} if ${activations.again} tensors were not computed again`;
  return [
    [
      'weights and statistics',
      sized(state.filter((entry) => !moments.includes(entry)).map(({ slot }) => slot)),
    ],
    ['moments', sized(moments.map(({ slot }) => slot))],
    ['new state, beside the old', sized(state.flatMap(({ next }) => next ?? []))],
    ['gradient sums', sized(sumSlots)],
    ['inputs and outputs', sized(hostSlots)],
    [`activations kept for the backward pass${again}`, kept],
    ['working set', sized(work) - kept],
  ];
}

const momentsOf = ({ state }: Program): readonly ProgramState[] =>
  state.filter(({ name }) => name.startsWith('optimizer/'));

/** Bytes of the moments that a program's rank has. */
export function momentBytes(program: Program): number {
  return momentsOf(program).reduce((total, { slot }) => total + program.slots[slot]!.bytes, 0);
}

const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(2)} MiB`;

/** What each rank has of the moments, where ranks share the update. */
export function momentsReport(programs: readonly Program[]): string {
  const moments = programs.map((program) => mebibytes(momentBytes(program)));
  return `moments, which ranks share: ${moments.join(', ')}`;
}
