import { writeSync } from 'node:fs';
import type { SerializedError } from 'vitest';
import type { Reporter, TestModule } from 'vitest/node';

/** Ends the run's output with one line a program can read: `N passed, N failed, N skipped`. */
export default class CountReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandledErrors: readonly SerializedError[]): void {
    const { passed, failed, skipped } = countTests(modules, unhandledErrors.length);
    // At exit, because the other reporters and the pool still write after this hook.
    process.once('exit', (code) => {
      const atLeast = code === 0 ? 0 : 1; // a run may fail before its first test
      writeSync(
        process.stdout.fd,
        `${passed} passed, ${Math.max(failed, atLeast)} failed, ${skipped} skipped\n`,
      );
    });
  }
}

/** Counts test cases; a file or suite that breaks outside its cases (an import, a hook, a crash) is one failure. */
function countTests(
  modules: readonly TestModule[],
  unhandledErrors: number,
): { passed: number; failed: number; skipped: number } {
  const states = modules.flatMap((module) =>
    [...module.children.allTests()].map((test) => test.result().state),
  );
  const count = (...wanted: string[]): number => states.filter((state) => wanted.includes(state)).length;
  const groups = modules.flatMap((module) => [module, ...module.children.allSuites()]);
  const brokenGroups = groups.filter((group) => group.errors().length > 0).length;
  return {
    passed: count('passed'),
    failed: count('failed') + brokenGroups + unhandledErrors,
    skipped: count('skipped', 'pending'),
  };
}
