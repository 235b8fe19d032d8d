import { expect, test } from 'vitest';
import { build, initialState } from './compile/compile.ts';
import { Device } from './device.ts';
import { alone, type Exchange, type GatherPart } from './exchange.ts';
import { Executor } from './executor.ts';
import { nn } from './index.ts';
import { StateStore } from './state.ts';
import { predictStep } from './train-step.ts';

const SEQUENCES = 4;
const LENGTH = 64;
const FRAME = { seed: 5, step: 0, sequence: 0, scalars: {} };
const X = Float32Array.from({ length: SEQUENCES * LENGTH * 4 }, (_, i) => Math.sin(i * 12.9898) * 1.7);

const step = () =>
  predictStep({
    model: nn.sequential({
      stem: nn.conv1d({ inputs: 4, outputs: 6, size: 5, padding: 'same' }),
      deep: nn.conv1d({ inputs: 6, outputs: 6, size: 3, dilation: 2, padding: 'same' }),
      head: nn.conv1d({ inputs: 6, outputs: 3, size: 3, padding: 'same' }),
    }),
  });

/** Two ranks of one process: who comes first waits for the other. */
class Pair {
  /** Dispatches that both had encoded at each meeting. */
  readonly encoded: number[] = [];
  private first:
    | { readonly parts: readonly GatherPart[]; readonly done: (all: Uint8Array<ArrayBuffer>[]) => void }
    | undefined;

  exchange(executors: readonly Executor[]): Exchange {
    const exchange: Exchange = {
      ...alone,
      remote: true,
      room: 64, // edges go in several turns
      round: () => exchange,
      combine: (parts) =>
        new Promise((done) => {
          if (this.first === undefined) {
            this.first = { parts, done };
            return;
          }
          this.encoded.push(Math.min(...executors.map(({ dispatchCount }) => dispatchCount)));
          const all = parts.map(({ own, offset, bytes }, i) => {
            const other = this.first!.parts[i]!;
            const whole = new Uint8Array(bytes);
            whole.set(own, offset);
            whole.set(other.own, other.offset);
            return whole;
          });
          this.first.done(all);
          this.first = undefined;
          done(all);
        }),
    };
    return exchange;
  }
}

test('while parts of half of the sequences meet, the device has the other half; bits are those of one rank', async () => {
  const device = await Device.open();
  const inputs = { x: [SEQUENCES, LENGTH, 4] };
  const { program, parameters } = build(step(), {
    inputs,
    leavesPerSequence: 2,
    sequencesOnDevice: SEQUENCES,
  });
  const store = new StateStore(device);
  const open = async (leaves: readonly number[]): Promise<Executor> => {
    const shares = Array.from({ length: SEQUENCES }, (_, round) => ({ round, leaves }));
    const executor = await Executor.create(device, program, store, shares, SEQUENCES);
    executor.setInputs({ x: X });
    return executor;
  };
  const [whole, ...ranks] = [await open([0, 1]), await open([0]), await open([1])];
  store.write(initialState(parameters, 3));
  await whole.run(FRAME);
  const pair = new Pair();
  const exchange = pair.exchange(ranks);
  await Promise.all(ranks.map((rank) => rank.run(FRAME, exchange)));

  const expected = (await whole.outputs()).prediction!.data;
  expect((await ranks[0]!.outputs()).prediction!.data).toEqual(expected); // that of part 0 gives it for all

  const counts = program.segments.map(({ once, leaf }) => once.length + leaf.length);
  const meetings = counts.slice(0, -1).flatMap((_, index) => {
    const all = SEQUENCES * counts.slice(0, index + 1).reduce((a, b) => a + b);
    return [all, all + (SEQUENCES / 2) * counts[index + 1]!];
  });
  expect(meetings.length).toBe(6);
  expect([...new Set(pair.encoded)]).toEqual(meetings);
  for (const executor of [whole, ...ranks]) executor.close();
  await device.close();
});
