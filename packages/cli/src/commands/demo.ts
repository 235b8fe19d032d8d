import type { Command } from '../command-line.ts';

export const demo: Command = {
  name: 'demo',
  about: 'to come',
  examples: [],
  options: {},
  run: async () => undefined,
};
