/** Peak memory of `prepare` on genomes of one, ten and a hundred sizes: it follows from the options, not from the genome. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type Chromosomes,
  writeFragments,
  writeGenome,
  writeMap,
  writePeaks,
  writeTrack,
} from './big-inputs.ts';
import { RUNS } from './command.ts';
import { environment, publish, ROOT, table } from './report.ts';

const CLI = `${ROOT}packages/cli/bin/cohesin.js`;
const SIZES = [1, 10, 100];
const CHROMOSOMES = 4;
const MEMORY_MIB = 24;
const THREADS = 2;

interface Kind {
  readonly title: string;
  /** Of a genome of size 1. */
  readonly genomeBp: number;
  /** Writes the inputs beside `genome.fa`, and gives the options that name them. */
  write(at: (name: string) => string, chromosomes: Chromosomes, size: number): Promise<readonly string[]>;
}

const KINDS: readonly Kind[] = [
  {
    title: 'tracks: bigWig, 2,048 bp in bins of 16',
    genomeBp: 1_000_000,
    write: async (at, chromosomes) => {
      writeTrack(at('track.bw'), chromosomes);
      return ['--tracks', at('track.bw'), '--length', '2048', '--bin', '16'];
    },
  },
  {
    title: 'contact maps: cooler, 64 bins of 100 bp',
    genomeBp: 200_000,
    write: async (at, chromosomes) => {
      await writeMap(at('map.cool'), chromosomes, 100);
      const sizes = ['--bin', '100', '--length', '6400', '--stride', '1600', '--stride-test', '1600'];
      return ['--contacts', at('map.cool'), ...sizes];
    },
  },
  {
    title: 'BPNet: fragments on two strands at peaks, 1,000 bins of 1 bp',
    genomeBp: 1_000_000,
    write: async (at, chromosomes, size) => {
      writeFragments(at('plus.bed'), chromosomes, 40_000 * size);
      writeFragments(at('minus.bed'), chromosomes, 40_000 * size);
      writePeaks(at('peaks.bed'), chromosomes, 1000);
      const tracks = ['--tracks', `${at('plus.bed')},${at('minus.bed')}`, '--statistic', 'sum'];
      return [...tracks, '--peaks', at('peaks.bed'), '--bin', '1', '--length', '2114', '--crop', '557'];
    },
  },
];

interface Run {
  readonly sequences: number;
  readonly stated: number;
  readonly peak: number;
  readonly seconds: number;
}

/** Finished runs are kept, and not run again: delete the folder to begin anew. */
const KEPT = join(RUNS, 'prepare-memory');

export async function prepareMemory(): Promise<void> {
  mkdirSync(KEPT, { recursive: true });
  const runs: { kind: string; size: number; run: Run }[] = [];
  for (const [i, kind] of KINDS.entries())
    for (const size of SIZES) {
      const kept = join(KEPT, `${i}-${size}.json`);
      if (!existsSync(kept)) writeFileSync(kept, JSON.stringify(await measure(kind, size)));
      const run = JSON.parse(readFileSync(kept, 'utf8')) as Run;
      runs.push({ kind: kind.title, size, run });
      console.log(kind.title, size, run);
    }
  const mib = (bytes: number): string => (bytes / 2 ** 20).toFixed(0);
  const rows = KINDS.map(({ title, genomeBp }) => {
    const own = runs.filter(({ kind }) => kind === title).map(({ run }) => run);
    return [
      `${title}; genomes of ${SIZES.map((size) => (genomeBp * size) / 1e6).join(', ')} Mb`,
      own.map(({ sequences }) => sequences.toLocaleString('en')).join(', '),
      own.map(({ stated }) => mib(stated)).join(', '),
      own.map(({ peak }) => mib(peak)).join(', '),
      own.map(({ seconds }) => seconds.toFixed(0)).join(', '),
    ];
  });
  publish({
    name: 'prepare-memory',
    title: 'Memory of prepare',
    environment: environment({ device: 'none', description: 'none' }),
    text: [
      `\`cohesin prepare\` on synthetic genomes of ${SIZES.join(', ')} sizes, \`--memory ${MEMORY_MIB}\`, ${THREADS} threads: what it states before it starts, and the
greatest resident size of the process (\`ru_maxrss\`), which holds everything: Node, the readers, their WebAssembly and garbage. Each run is a process
of its own; the inputs are made before.`,
      table(['', 'sequences', 'stated, MiB', 'peak, MiB', 'seconds'], rows),
    ].join('\n\n'),
    data: runs,
  });
}

async function measure(kind: Kind, size: number): Promise<Run> {
  const folder = mkdtempSync(join(tmpdir(), 'prepare-memory-'));
  try {
    mkdirSync(join(folder, 'in'));
    const at = (name: string): string => join(folder, 'in', name);
    const length = (kind.genomeBp * size) / CHROMOSOMES;
    const chromosomes = new Map(Array.from({ length: CHROMOSOMES }, (_, i) => [`chr${i + 1}`, length]));
    writeGenome(at('genome.fa'), chromosomes);
    const own = await kind.write(at, chromosomes, size);
    return prepare([
      ...['prepare', '--genome', at('genome.fa'), '--out', join(folder, 'out'), ...own],
      ...['--valid', 'chr3', '--test', 'chr4', '--memory', String(MEMORY_MIB), '--threads', String(THREADS)],
    ]);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function prepare(args: readonly string[]): Run {
  const { stdout, stderr, status } = spawnSync(process.execPath, [CLI, ...args, '--json'], {
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  });
  if (status !== 0) throw new Error(`cohesin ${args.join(' ')}: ${stderr}`);
  const events = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  const [plan, end] = ['plan', 'end'].map((name) => events.find(({ event }) => event === name));
  const records: Record<string, number> = end.records;
  return {
    sequences: Object.values(records).reduce((sum, count) => sum + count, 0),
    stated: Object.values(plan.memory as Record<string, number>).reduce((sum, bytes) => sum + bytes, 0),
    peak: end.peakBytes,
    seconds: end.seconds,
  };
}
