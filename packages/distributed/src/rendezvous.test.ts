import { expect, test } from 'vitest';
import { abort, Rendezvous, rendezvousMemory } from './rendezvous.ts';

test('a rank that waits in vain says for whom, at which step and at what they were', () => {
  const memory = rendezvousMemory(3);
  const [first, second, third] = [0, 1, 2].map((rank) => new Rendezvous(memory, rank, 120));
  first!.enter(7, 'summing gradients');
  second!.enter(7, 'forward and backward');
  third!.enter(6, 'idle');
  expect(() => first!.meet()).toThrow(
    /rank 0 waited 0 s at step 7, summing gradients: rank 1 is at step 7, forward and backward; rank 2 is at step 6, idle/,
  );
});

test('a rank that waits gives up at once when another failed', () => {
  const memory = rendezvousMemory(2);
  const waiting = new Rendezvous(memory, 0, 60_000);
  abort(memory);
  const start = performance.now();
  expect(() => waiting.meet()).toThrow(/rank 0 stops because another rank failed/);
  expect(performance.now() - start).toBeLessThan(5000);
});

test('a rank of a pipeline that waits for another stage says for what, and where that rank is', () => {
  const memory = rendezvousMemory(2);
  const [first, second] = [0, 1].map((rank) => new Rendezvous(memory, rank, 120));
  first!.enter(7, 'backward', { stage: 0, microbatch: 2 });
  second!.enter(7, 'forward', { stage: 1, microbatch: 3 });
  const word = {
    words: new Int32Array(new SharedArrayBuffer(4)),
    index: 0,
    done: (value: number) => value === 3,
  };
  expect(() => first!.waitFor(word, 1, 'the gradient of leaf 2 from stage 1')).toThrow(
    /rank 0 waited 0 s at step 7, backward of microbatch 2 in stage 0 for the gradient of leaf 2 from stage 1: rank 1 is at step 7, forward of microbatch 3 in stage 1/,
  );
});
