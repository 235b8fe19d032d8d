#!/usr/bin/env node
// npm links this file before anything is built, so the command itself lives in dist.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const main = new URL('../dist/main.js', import.meta.url);
if (!existsSync(main)) {
  console.error(
    `cohesin: ${fileURLToPath(main)} is not built; run \`npm run setup\` in the repository first`,
  );
  process.exit(78);
}
await import(main.href);
