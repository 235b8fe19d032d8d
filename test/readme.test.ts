import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { simulateData } from './simulated-data.ts';

test('the example of the README is this file, and it runs', async () => {
  const example = await readFile(new URL('readme-example.ts', import.meta.url), 'utf8');
  const readme = await readFile(new URL('../README.md', import.meta.url), 'utf8');
  expect(readme).toContain(`\`\`\`ts\n${example}\`\`\``);

  const dir = await mkdtemp(join(tmpdir(), 'cohesin-readme-'));
  const home = process.cwd();
  const printed = vi.spyOn(console, 'log').mockImplementation(() => undefined);
  try {
    await simulateData(dir, { lengthBp: 1024, binBp: 16, tracks: 4, sequences: { train: 16 } });
    process.chdir(dir);
    await import('./readme-example.ts');
  } finally {
    process.chdir(home);
    await rm(dir, { recursive: true, force: true });
  }
  const [memory, ...losses] = printed.mock.calls.map(([line]) => line as unknown);
  expect(memory).toMatch(/peak/);
  expect(losses).toHaveLength(4);
  for (const loss of losses) expect(Number.isFinite(loss)).toBe(true);
});
