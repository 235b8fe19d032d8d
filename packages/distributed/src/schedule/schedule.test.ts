import { describe, expect, test } from 'vitest';
import { type Action, formatAction, type Pipeline, type Schedule } from './action.ts';
import { checkSchedule } from './check.ts';
import { makeSchedule, SCHEDULES } from './generate.ts';
import { printSchedule } from './print.ts';
import { compareWithModel, randomPipeline, runModel, seeded } from './testing.ts';
import { ScheduleError } from './waits.ts';

const FOUR: Pipeline = { stages: [[0], [1], [2], [3]], within: 'sequence' };
const UNEVEN: Pipeline = { stages: [[0, 1, 2], [3]], within: 'sequence', leaves: [24, 8] };

describe('schedules', () => {
  test('every schedule on random pipelines is accepted, and model ranks come to its end', () => {
    const random = seeded(1);
    for (let i = 0; i < 600; i++) {
      const pipeline = randomPipeline(random);
      const microbatches = 1 + Math.floor(random() * 12);
      const schedule = makeSchedule(SCHEDULES[i % 3]!, pipeline, microbatches, {
        ahead: Math.floor(random() * 3),
      });
      checkSchedule(schedule);
      expect(runModel(schedule, random)).toBeUndefined();
    }
  });

  test('1F1B keeps as many activations as there are stages to come, GPipe those of all microbatches', () => {
    expect(checkSchedule(makeSchedule('1f1b', FOUR, 8)).inFlight).toEqual([4, 3, 2, 1]);
    expect(checkSchedule(makeSchedule('zero-bubble', FOUR, 8)).inFlight).toEqual([4, 4, 4, 4]);
    expect(checkSchedule(makeSchedule('gpipe', FOUR, 8)).inFlight).toEqual([8, 8, 8, 8]);
  });

  test.each([2, 3, 4, 8])('%i stages idle as long as published', (stages) => {
    const pipeline: Pipeline = {
      stages: Array.from({ length: stages }, (_, rank) => [rank]),
      within: 'sequence',
    };
    const microbatches = 3 * stages;
    const units = (name: (typeof SCHEDULES)[number]): number =>
      Number(/(\d+) columns/.exec(printSchedule(makeSchedule(name, pipeline, microbatches)))![1]);
    const busy = 3 * microbatches; // forward, input gradient and weight gradient
    expect(units('gpipe')).toBe(busy + 3 * (stages - 1));
    expect(units('1f1b')).toBe(busy + 3 * (stages - 1));
    expect(units('zero-bubble')).toBe(busy + (stages - 1)); // a third of 1F1B's bubble (Qi et al. 2023, table 2)
  });

  test('a timetable shows who works when', () => {
    const pipeline: Pipeline = { stages: [[0], [1]], within: 'sequence' };
    expect(printSchedule(makeSchedule('1f1b', pipeline, 3)).split('\n')).toEqual([
      'rank 0, stage 0  0F0 0F1 ·   ·   0B0 --- 0F2 0B1 --- ·   0B2 ---',
      'rank 1, stage 1  ·   1F0 1B0 --- 1F1 1B1 --- 1F2 1B2 --- ·   ·',
      '12 columns, bubble 25.0 %',
    ]);
  });

  test('ranks talk to those that hold some of the same rows', () => {
    const three: Pipeline = {
      stages: [
        [0, 1, 2],
        [3, 4],
      ],
      within: 'sequence',
      leaves: [24, 8],
    };
    const sends = makeSchedule('gpipe', three, 1).actions.map((list) =>
      list.filter(({ kind }) => kind === 'send').map(formatAction),
    );
    expect(sends).toEqual([
      ['send 0F0 to 3'],
      ['send 0F0 to 3', 'send 0F0 to 4'],
      ['send 0F0 to 4'],
      ['send 1B0 to 0', 'send 1B0 to 1'],
      ['send 1B0 to 1', 'send 1B0 to 2'],
    ]);
  });

  test('a schedule of no known name, and a rank in two stages, are refused', () => {
    expect(() => makeSchedule('zerobubble' as '1f1b', FOUR, 4)).toThrow(
      "no schedule is called 'zerobubble'; there are gpipe, 1f1b, zero-bubble",
    );
    expect(() => makeSchedule('1f1b', { stages: [[0, 1], [1]], within: 'data' }, 4)).toThrow(
      'rank 1 is in stages 0 and 1',
    );
  });
});

describe('the checker', () => {
  test('agrees with model ranks on random schedules, whole and mutated', () => {
    const { valid, accepted, wrong } = compareWithModel(2000, seeded(2));
    expect(wrong).toEqual([]);
    expect(valid).toBe(1000);
    expect(accepted).toBeGreaterThan(1060); // mutations that only reorder what is independent
    expect(accepted).toBeLessThan(1900);
  });

  interface Broken {
    readonly change: (actions: Action[][]) => void;
    readonly error: string;
    /** What goes wrong when model ranks run it. */
    readonly run: string;
    readonly of?: Pipeline;
  }

  const broken: Readonly<Record<string, Broken>> = {
    'a dropped send': {
      change: ([first]) => drop(first!, 'send 0F1 to 1'),
      error: "rank 0: 'send 0F1 to 1' is missing",
      run: 'rank 1 does receive 0F1 from 0 without its value',
    },
    'swapped receives': {
      change: ([, second]) => swap(second!, 'receive 0F0 from 0', 'receive 0F1 from 0'),
      error: "rank 1, 1F0: needs 'receive 0F0 from 0' before it",
      run: 'rank 1 does receive 0F1 from 0 without its value',
    },
    'receives in another order than sends': {
      change: ([first]) => swap(first!, 'send 0F0 to 1', 'send 0F1 to 1', '0F1'),
      error:
        "rank 1, receive 0F0 from 0: the value that comes at this place is 'send 0F1 to 1' of rank 0; send and receive in the same order",
      run: 'rank 1 does receive 0F0 from 0 without its value',
    },
    'an action twice': {
      change: ([first]) => first!.push(find(first!, '0B0')),
      error: 'rank 0, 0B0: 0I0 is done twice',
      run: 'rank 0 does 0B0 without a need: it is done',
    },
    'an action of another rank': {
      change: ([first, second]) => first!.push(find(second!, '1F0')),
      error: 'rank 0, 1F0: this is not for rank 0, which works on stage 0',
      run: 'rank 0 waits for ever at 1F0',
    },
    'a weight gradient before its input gradient': {
      change: ([first]) => {
        const [at] = [first!.indexOf(find(first!, '0B0'))];
        const [whole] = first!.splice(at, 1) as [Action];
        first!.splice(
          at,
          0,
          { ...whole, kind: 'weightGradient' } as Action,
          { ...whole, kind: 'inputGradient' } as Action,
        );
      },
      error: "rank 0, 0W0: needs '0I0' before it",
      run: 'rank 0 does 0W0 without the input gradient',
    },
    'a cyclic wait': {
      change: ([first]) => {
        move(first!, 'receive 1B0 from 1', 0);
      },
      error:
        'waits for ever: rank 0 at receive 1B0 from 1 waits for rank 1 to do send 1B0 to 0; rank 1 at receive 0F0 from 0 waits for rank 0 to do send 0F0 to 1',
      run: 'rank 0 waits for ever at receive 1B0 from 1',
    },
    'ranks of a stage in different orders': {
      of: UNEVEN,
      change: ([first]) => {
        const forward = first!.indexOf(find(first!, '0F1'));
        move(first!, '0F1', first!.indexOf(find(first!, '0F0')));
        expect(forward).toBeGreaterThan(0);
      },
      error: 'waits for rank 1 to do 0F1; rank 1 at 0F0 waits for rank 0 to do 0F0',
      run: 'rank 0 waits for ever at 0F1',
    },
  };

  test.each(Object.entries(broken))('refuses %s and says where', (_, { change, error, run, of = FOUR }) => {
    const schedule = makeSchedule('1f1b', of, 3);
    const actions = schedule.actions.map((list) => [...list]);
    checkSchedule(schedule);
    change(actions);
    const mutated: Schedule = { ...schedule, actions };
    expect(() => checkSchedule(mutated)).toThrow(ScheduleError);
    expect(() => checkSchedule(mutated)).toThrow(error);
    expect(runModel(mutated, seeded(3))).toBe(run);
  });

  test('refuses 1F1B where sends wait for their receivers, as two neighbours then wait for each other', () => {
    expect(() => checkSchedule({ ...makeSchedule('1f1b', FOUR, 4), buffers: 0 })).toThrow(
      'rank 2 at send 2F1 to 3 waits for rank 3 to do receive 2F1 from 2; rank 3 at send 3B0 to 2 waits for rank 2',
    );
    checkSchedule({ ...makeSchedule('gpipe', FOUR, 4), buffers: 0 });
  });
});

function find(list: readonly Action[], name: string): Action {
  const found = list.find((action) => formatAction(action) === name);
  if (found === undefined) throw new Error(`${name} is not in ${list.map(formatAction).join(', ')}`);
  return found;
}

function drop(list: Action[], name: string): void {
  list.splice(list.indexOf(find(list, name)), 1);
}

function move(list: Action[], name: string, to: number): void {
  const action = find(list, name);
  drop(list, name);
  list.splice(to, 0, action);
}

/** Swaps two actions; the earlier one first goes behind `after`. */
function swap(list: Action[], a: string, b: string, after?: string): void {
  if (after !== undefined) move(list, a, list.indexOf(find(list, after)));
  const [i, j] = [list.indexOf(find(list, a)), list.indexOf(find(list, b))];
  [list[i], list[j]] = [list[j]!, list[i]!];
}
