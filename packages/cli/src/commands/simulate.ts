import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Command } from '../command-line.ts';
import type { GenomeOptions } from '../demo/genome.ts';
import { CONTACTS, RECIPE, type Recipe } from '../demo/recipe.ts';
import { writeMaps, writeTracks } from '../demo/simulated.ts';
import { type Output, openOutput } from '../progress.ts';
import { usage } from '../task.ts';

export const simulate: Command = {
  name: 'simulate',
  about: 'write data sets of simulated genomes: tracks, and contact maps that follow from the same motifs',
  examples: ['cohesin simulate --out runs/simulated'],
  options: {
    out: { value: 'DIR', about: 'gets tracks/ and contacts/, and a params file for each' },
    'train-maps': {
      value: 'N',
      about: `contact maps to train on (default ${CONTACTS.genome.sequences.train})`,
    },
    'train-tracks': {
      value: 'N',
      about: `sequences to train tracks on (default ${RECIPE.genome.sequences.train})`,
    },
    seed: { value: 'N', about: 'of both genomes (default 1)' },
    json: { about: 'one JSON object a line, for programs' },
  },
  run: async (options) => {
    const out = options.required('out');
    const output = openOutput(options.flag('json'));
    const seed = options.count('seed', 0) ?? 1;
    await mkdir(out, { recursive: true });
    const tracks = withTraining(RECIPE, 2 * seed - 1, options.count('train-tracks'));
    const maps = withTraining(CONTACTS, 2 * seed, options.count('train-maps'));
    await usage(() => writeTask(join(out, 'tracks'), tracks, writeTracks, output));
    await usage(() => writeTask(join(out, 'contacts'), maps, writeMaps, output));
  },
};

/** The recipe with so many training sequences, of a genome of its own. */
function withTraining({ genome, ...recipe }: Recipe, seed: number, train: number | undefined): Recipe {
  const sequences = train === undefined ? genome.sequences : { ...genome.sequences, train };
  return { ...recipe, genome: { ...genome, seed, sequences } };
}

async function writeTask(
  dir: string,
  { genome, params, steps }: Recipe,
  write: (dir: string, genome: GenomeOptions) => Promise<void>,
  output: Output,
): Promise<void> {
  await write(dir, genome);
  await writeFile(`${dir}.json`, `${JSON.stringify(params, undefined, 1)}\n`);
  const counts = Object.entries(genome.sequences).map(([split, count]) => `${count} ${split}`);
  output.event({ event: 'data set', path: dir, params: `${dir}.json`, sequences: genome.sequences, steps });
  output.say(`${dir}: ${counts.join(', ')} sequences of ${genome.lengthBp} bp in bins of ${genome.binBp} bp`);
  output.say(`  cohesin train --model ${dir}.json --data ${dir} --out DIR --steps ${steps}`);
}
