/** Keeps imports between packages in their directions, and addresses that belong to one machine out of every file. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

type Allowed = (file: string) => readonly string[];

/** What a file of each package may import of ours; `file` is its name without the folder. */
const ALLOWED: Readonly<Record<string, Allowed>> = {
  core: () => [],
  io: () => ['core'],
  distributed: () => ['core'],
  models: (file) => [
    'core',
    ...(file === 'plan.ts' || file === 'plan.test.ts' ? ['distributed'] : []),
    ...(file === 'model.ts' ? [] : ['io']),
  ],
  cli: () => ['core', 'io', 'distributed', 'models'],
};

const MACHINE_ADDRESSES = [
  /registry\.(npmjs|yarnpkg)\.\w+/,
  /(files\.pythonhosted|deb\.debian|security\.debian|archive\.ubuntu)\.\w+/,
  /(^|["'`\s(=:])\/(home|root|tmp|work)\/\w/m,
];

const root = fileURLToPath(new URL('..', import.meta.url));

describe('imports', () => {
  test('every package has its row in the table of directions', () => {
    expect(readdirSync(join(root, 'packages')).sort()).toEqual(Object.keys(ALLOWED).sort());
  });

  test.each(Object.keys(ALLOWED))('%s imports only the packages below it', (name) => {
    const folder = join(root, 'packages', name);
    const sources = filesIn(join(folder, 'src')).filter((file) => /\.[cm]?[jt]s$/.test(file));
    expect(sources.length).toBeGreaterThan(0);
    expect(sources.flatMap((file) => wrongImports(name, folder, file))).toEqual([]);
  });

  test.each(Object.keys(ALLOWED))('%s declares only the packages its sources may import', (name) => {
    const manifest = JSON.parse(readFileSync(join(root, 'packages', name, 'package.json'), 'utf8'));
    const declared = Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies });
    const ours = declared.filter((dependency) => dependency.startsWith('@cohesin/'));
    const anyFile = new Set(['plan.ts', 'other.ts'].flatMap((file) => ALLOWED[name]!(file)));
    expect(ours.filter((dependency) => !anyFile.has(dependency.slice('@cohesin/'.length)))).toEqual([]);
  });

  test('imports in each form are seen, and text that only looks like one is not', () => {
    const source = `
      import { a } from '@cohesin/core'; import type B from "@cohesin/io";
      import '@cohesin/models'; export * from '@cohesin/cli'; const c = await import('./c.ts');
      new URL('../dist/rank-worker.js', import.meta.url); // from somewhere else
      import {
        d,
      } from '../d.ts';`;
    const seen = ['@cohesin/core', '@cohesin/io', '@cohesin/models', '@cohesin/cli', './c.ts', '../d.ts'];
    expect(specifiers(source).sort()).toEqual(seen.sort());
  });
});

test('no file holds the host of a package registry or a path of one machine', () => {
  const found = filesIn(root).flatMap((file) => {
    const text = statSync(file).size < 2 ** 20 ? readFileSync(file, 'utf8') : '';
    if (text.includes('\0')) return []; // binary
    const hits = MACHINE_ADDRESSES.flatMap((address) => text.match(address)?.[0].trim() ?? []);
    return hits.map((hit) => `${relative(root, file)}: ${hit}`);
  });
  expect(found).toEqual([]);
});

/** The imports of one file that the table forbids, each with the file and what it may import. */
function wrongImports(name: string, folder: string, file: string): string[] {
  const allowed = ALLOWED[name]!(basename(file));
  const mayImport = (specifier: string): boolean => {
    if (specifier.startsWith('.')) return !relative(folder, join(file, '..', specifier)).startsWith('..');
    if (!specifier.startsWith('@cohesin/')) return true; // lint checks that others' packages are declared
    const imported = specifier.split('/')[1]!;
    return imported === name || allowed.includes(imported);
  };
  const wrong = specifiers(readFileSync(file, 'utf8')).filter((specifier) => !mayImport(specifier));
  return wrong.map(
    (specifier) =>
      `${relative(root, file)} imports ${specifier}; allowed: ${allowed.join(', ') || 'none of ours'}`,
  );
}

/** What a source imports, exports from, or imports dynamically. */
function specifiers(source: string): string[] {
  const forms = [
    /^\s*(?:import|export)\b[^'"`;]*?\bfrom\s*['"]([^'"]+)['"]/gm,
    /;\s*(?:import|export)\b[^'"`;]*?\bfrom\s*['"]([^'"]+)['"]/gm,
    /(?:^|;)\s*import\s*['"]([^'"]+)['"]/gm,
    /\bimport\s*\(\s*['"`]([^'"`]+)['"`]/g,
  ];
  return [...new Set(forms.flatMap((form) => [...source.matchAll(form)].map((match) => match[1]!)))];
}

/** Every file under a folder that could be committed, with its full path. */
function filesIn(folder: string): string[] {
  const skipped = new Set(['node_modules', 'dist', 'coverage', '.git', 'runs', 'shared']);
  return readdirSync(folder, { withFileTypes: true })
    .filter((entry) => !skipped.has(entry.name))
    .flatMap((entry) => {
      const path = join(folder, entry.name);
      return entry.isDirectory() ? filesIn(path) : entry.isFile() ? [path] : [];
    });
}
