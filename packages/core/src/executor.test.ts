import { expect, test } from 'vitest';
import { build, initialState } from './compile/compile.ts';
import { Device } from './device.ts';
import { Executor } from './executor.ts';
import { nn } from './index.ts';
import { StateStore } from './state.ts';
import { Together } from './testing/together.ts';
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

/** Keeps how many dispatches both ranks had encoded at each meeting. */
class Counting extends Together {
  readonly encoded: number[] = [];
  executors: readonly Executor[] = [];

  protected override all(brought: readonly unknown[]): readonly unknown[] {
    this.encoded.push(Math.min(...this.executors.map(({ dispatchCount }) => dispatchCount)));
    return brought;
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
  const together = new Counting(ranks.length, 64); // bytes: edges go in several turns
  together.executors = ranks;
  await Promise.all(ranks.map((rank) => rank.run(FRAME, together.exchange())));

  const expected = (await whole.outputs()).prediction!.data;
  expect((await ranks[0]!.outputs()).prediction!.data).toEqual(expected); // that of part 0 gives it for all

  const counts = program.segments.map(({ once, leaf }) => once.length + leaf.length);
  const meetings = counts.slice(0, -1).flatMap((_, index) => {
    const all = SEQUENCES * counts.slice(0, index + 1).reduce((a, b) => a + b);
    return [all, all + (SEQUENCES / 2) * counts[index + 1]!];
  });
  expect(meetings.length).toBe(6);
  expect([...new Set(together.encoded)]).toEqual(meetings);
  for (const executor of [whole, ...ranks]) executor.close();
  await device.close();
});
