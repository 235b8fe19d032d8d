import { availableParallelism } from 'node:os';
import { basename } from 'node:path';
import {
  type ContactOptions,
  type Division,
  describeDataset,
  PREPARE_DEFAULTS,
  type PrepareOptions,
  type PreparePlan,
  planPrepare,
  readTrackTable,
  runPrepare,
  type TrackSource,
  toStatistic,
} from '@cohesin/io';
import { type Command, type Options, UsageError } from '../command-line.ts';
import { duration, type Output, openOutput } from '../progress.ts';
import { usage } from '../task.ts';

export const prepare: Command = {
  name: 'prepare',
  about: 'make a TFRecord data set from a genome and its tracks; every input is checked before any work',
  examples: [
    'cohesin prepare --genome sacCer3.fa --tracks MNase.bw,Scc1.bw --chromosomes chrII,chrIV,chrXVI --length 16384 --crop 2048 --valid chrII --test chrXVI --out data/yeast',
    'cohesin prepare --genome sacCer3.fa --tracks MNase.bw --length 16384 --valid chrII --test chrXVI --out data/yeast --direct',
    'cohesin prepare --genome hg38.fa --targets targets.txt --gaps gaps.bed --blacklist blacklist.bed --valid 0.05 --test 0.05 --out data/hg38',
    'cohesin prepare --genome hg38.fa --targets targets.txt --sequences sequences.bed --length 196608 --crop 40960 --out data/enformer',
    'cohesin prepare --genome hg38.fa --tracks plus.bw,minus.bw --statistic sum --peaks summits.narrowPeak --bin 1 --length 2114 --crop 557 --valid chr8,chr20 --test chr1 --out data/bpnet',
    'cohesin prepare --genome hg38.fa --contacts h1.mcool --bin 2048 --length 1048576 --crop 65536 --smooth 1 --break 8388608 --unmappable-limit 0.3 --out data/akita',
    'cohesin prepare --genome hg38.2bit --targets targets.txt --folds 8 --out data/folds --check',
  ],
  options: {
    genome: { value: 'FILE', about: 'FASTA (plain, or .gz by bgzip) or 2bit' },
    targets: {
      value: 'FILE',
      about:
        'table of tracks: identifier, file, clip, clip_soft, scale, sum_stat, strand_pair, description; of fragments strand, shift_plus, shift_minus; role (control)',
    },
    tracks: {
      value: 'A.bw,B.bed.gz',
      about:
        'bigWig files, or fragments in BED, BEDPE or .tsv whose ends are counted (by place, where tabix has indexed them), instead of a table',
    },
    controls: {
      value: 'A.bw,B.bw',
      about: 'of --tracks: tracks that BPNet reads beside the sequence; in a table, role control',
    },
    contacts: {
      value: 'A.mcool,B.hic',
      about: 'contact maps, instead of tracks; --bin chooses the resolution',
    },
    normalization: {
      value: 'NAME',
      about: 'of .hic files of --contacts: KR (default), VC, VC_SQRT, SCALE, as the file has',
    },
    diagonal: { value: 'N', about: 'of --contacts: the first diagonal that is a target (default 2)' },
    smooth: { value: 'BINS', about: 'of --contacts: standard deviation of a Gaussian (default 0: none)' },
    statistic: {
      value: 'NAME',
      about:
        'of --tracks, over a bin: mean (default), sum, max, median, peak, sum_sqrt, mean_sqrt, sum_exp75',
    },
    scale: { value: 'X', about: 'of --tracks: values are multiplied by it' },
    clip: {
      value: 'X',
      about: 'of --tracks: larger values become X; of --contacts: logarithms end at ±X (default 2)',
    },
    'clip-soft': { value: 'X', about: 'of --tracks: larger values become X - 1 + sqrt(value - X + 1)' },
    out: { value: 'DIR', about: 'a new folder' },
    length: { value: 'BP', about: 'bases per sequence (default 131072)' },
    crop: { value: 'BP', about: 'bases at each end without targets (default 0)' },
    bin: { value: 'BP', about: 'bases per target (default 128)' },
    valid: {
      value: 'LIST|SHARE',
      about: 'chromosomes, comma-separated, or a share of the genome (default 0.05)',
    },
    test: { value: 'LIST|SHARE', about: 'as --valid' },
    folds: { value: 'N', about: 'fold0 to foldN-1 instead of train, valid and test' },
    sequences: {
      value: 'BED',
      about: 'places and splits of a published data set; targets are centred on them',
    },
    peaks: {
      value: 'BED',
      about:
        'a sequence for each row, targets centred on its summit (column 10 of a narrowPeak) or middle, as BPNet trains on',
    },
    background: {
      value: 'RATIO',
      about: 'of --peaks: so many places for each, that touch none and match its G and C, instead of them',
    },
    chromosomes: { value: 'LIST', about: 'only these (default all)' },
    gaps: { value: 'BED', about: 'stretches without assembly, left out' },
    limit: { value: 'BED', about: 'stretches to stay inside of' },
    blacklist: {
      value: 'BED',
      about:
        'stretches whose values are held to the median of their sequence; --peaks whose targets touch it are left out',
    },
    unmappable: { value: 'BED', about: 'stretches that reads cannot be mapped to' },
    'unmappable-limit': {
      value: 'SHARE',
      about: 'of unmappable bins, from which a sequence is dropped (default 0.5)',
    },
    'unmappable-clip': {
      value: 'QUANTILE',
      about: 'of its sequence, that an unmappable bin may reach (default 1: any)',
    },
    'unmappable-feature': { about: 'stores the unmappable bins in each record, as baskerville does (umap)' },
    stride: {
      value: 'BP|SHARE',
      about: 'between starts of sequences; up to 1, a share of the length (default 1)',
    },
    'stride-test': { value: 'BP|SHARE', about: 'of valid and test (default 1)' },
    snap: { value: 'BP', about: 'starts are multiples of it (default 1)' },
    break: {
      value: 'BP',
      about: 'stretches are halved until none is longer, before they are divided (default 786432)',
    },
    interpolate: { about: 'missing values are filled from their neighbours (default 0)' },
    'length-tolerance': {
      value: 'BP',
      about: "a chromosome's length in a track may differ from the genome's by this (default 0)",
    },
    'absent-as-zero': { about: 'a track may lack chromosomes; they are 0' },
    precision: {
      value: 'f64|f32|f16',
      about: 'f16 computes as basenji does, f32 without its early rounding of each bp (default f64)',
    },
    published: {
      about: "the transforms of Borzoi's paper: x^0.75, soft clip X + sqrt(value - X), scale last",
    },
    'clip-extremes': {
      value: 'QUANTILE',
      about:
        "each track is held to this quantile of its targets (baskerville's is 0.9999999); reads tracks twice",
    },
    'one-hot': { about: 'four bytes per base, as Basenji2 and Enformer were published (default one)' },
    'keep-order': { about: 'sequences in the order of the genome (default shuffled)' },
    seed: { value: 'N', about: 'of splits and order (default 44)' },
    sample: { value: 'SHARE', about: 'of the sequences of each split to keep (default 1)' },
    'per-file': { value: 'N', about: 'sequences per file (default 256)' },
    memory: {
      value: 'MIB',
      about:
        'for targets, ends of fragments and lists of sequences (default 256); what program and threads take besides is said',
    },
    threads: { value: 'N', about: 'that read tracks (default: one a core); the data do not depend on it' },
    direct: {
      about:
        'writes no records: train, evaluate and baseline read genome and tracks, in the same order and to the bit',
    },
    check: { about: 'says what would be made, and stops' },
    json: { about: 'one JSON object a line, for programs' },
  },
  run: async (options) => {
    const output = openOutput(options.flag('json'));
    const request = await usage(() => readRequest(options));
    const out = options.required('out');
    const threads = options.count('threads', 0) ?? availableParallelism();
    const looked = (done: number, total: number): void =>
      output.progress(`looked at ${done} of ${total} tracks`);
    const plan = await usage(() => planPrepare(request, looked));
    output.endProgress();
    try {
      announce(plan, options.flag('direct') ? undefined : threads, output);
      if (options.flag('check')) return;
      if (options.flag('direct')) await describe(out, plan, output);
      else await write(out, plan, threads, output);
    } finally {
      await plan.close();
    }
  },
};

async function readRequest(options: Options): Promise<PrepareOptions> {
  const defaults = PREPARE_DEFAULTS;
  const sequenceLengthBp = options.count('length') ?? defaults.sequenceLengthBp;
  const memory = options.count('memory');
  const chromosomes = options.text('chromosomes')?.split(',');
  const contacts = readContacts(options);
  const background = options.number('background');
  const extremeQuantile = options.number('clip-extremes');
  const poolWidthBp = options.count('bin') ?? defaults.poolWidthBp;
  return {
    ...defaults,
    genome: options.required('genome'),
    tracks: await readTracks(options),
    split: readSplit(options),
    sequenceLengthBp,
    cropBp: options.count('crop', 0) ?? defaults.cropBp,
    poolWidthBp,
    ...(contacts && { contacts }),
    ...(extremeQuantile !== undefined && { extremeQuantile }),
    ...(chromosomes && { chromosomes }),
    ...readBeds(options),
    ...(background !== undefined && { background }),
    unmappableLimit: options.number('unmappable-limit') ?? defaults.unmappableLimit,
    unmappableClip: options.number('unmappable-clip') ?? defaults.unmappableClip,
    storeUnmappable: options.flag('unmappable-feature'),
    strideTrainBp: stride(options, 'stride', sequenceLengthBp),
    strideTestBp: stride(options, 'stride-test', sequenceLengthBp),
    snapBp: options.count('snap') ?? (contacts ? poolWidthBp : defaults.snapBp),
    breakAboveBp: options.count('break') ?? defaults.breakAboveBp,
    interpolate: options.flag('interpolate'),
    absent: options.flag('absent-as-zero') ? 'zero' : 'error',
    lengthToleranceBp: options.count('length-tolerance', 0) ?? defaults.lengthToleranceBp,
    precision: options.choice('precision', ['f64', 'f32', 'f16']) ?? defaults.precision,
    published: options.flag('published'),
    sequence: options.flag('one-hot') ? 'one-hot' : 'codes',
    shuffle: !options.flag('keep-order'),
    seed: options.count('seed', 0) ?? defaults.seed,
    sample: options.number('sample') ?? defaults.sample,
    recordsPerShard: options.count('per-file') ?? defaults.recordsPerShard,
    memoryBytes: memory === undefined ? defaults.memoryBytes : memory * 2 ** 20,
  };
}

function readContacts(options: Options): ContactOptions | undefined {
  if (options.text('contacts') !== undefined) {
    const [diagonalOffset, clip, smoothing] = [
      options.count('diagonal'),
      options.number('clip'),
      options.number('smooth'),
    ];
    const normalization = options.text('normalization');
    return {
      ...{ diagonalOffset: diagonalOffset ?? 2, clip: clip ?? 2, smoothing: smoothing ?? 0 }, // akita_data_read.py
      ...(normalization === undefined ? {} : { normalization }),
    };
  }
  const idle = ['diagonal', 'smooth', 'normalization'].filter((name) => options.text(name) !== undefined);
  if (idle.length > 0) throw new UsageError(`--${idle[0]} goes with --contacts`);
  return undefined;
}

const BIGWIG_OPTIONS = ['statistic', 'scale', 'clip-soft', 'controls'] as const;

async function readTracks(options: Options): Promise<readonly TrackSource[]> {
  const sources = ['targets', 'tracks', 'contacts'].filter((name) => options.text(name) !== undefined);
  if (sources.length !== 1)
    throw new UsageError(
      'cohesin prepare needs one of --targets FILE, --tracks A.bw,B.bw and --contacts A.cool,B.hic',
    );
  const [kind] = sources;
  const idle = BIGWIG_OPTIONS.filter((name) => kind !== 'tracks' && options.text(name) !== undefined);
  if (idle.length > 0) throw new UsageError(`--${idle[0]} goes with --tracks; in a table it is a column`);
  if (kind === 'targets') {
    if (options.text('clip') !== undefined)
      throw new UsageError('--clip goes with --tracks; in a table it is a column');
    return await readTrackTable(options.required('targets'));
  }
  const [clip, clipSoft] = [options.number('clip'), options.number('clip-soft')];
  const targets = options.required(kind!).split(',');
  const controls = options.text('controls')?.split(',') ?? [];
  return [...targets, ...controls].map((file, i) => ({
    file,
    ...(i >= targets.length && { role: 'control' as const }),
    identifier: basename(file).replace(/\.(bw|bigwig|m?cool|hic|(bed(pe)?|tsv)(\.gz)?)$/i, ''),
    description: basename(file),
    statistic: toStatistic(options.text('statistic') ?? 'mean', '--statistic'),
    scale: options.number('scale') ?? 1,
    ...(clip === undefined ? {} : { clip }),
    ...(clipSoft === undefined ? {} : { clipSoft }),
  }));
}

const DEFAULT_SHARE = '0.05'; // basenji_data.py

function readSplit(options: Options): PrepareOptions['split'] {
  const [folds, path] = [options.count('folds', 2), options.text('sequences')];
  const parts = [options.text('valid'), options.text('test')];
  const given = [folds, path, parts[0] ?? parts[1]].filter((value) => value !== undefined);
  if (given.length > 1) throw new UsageError('--folds, --sequences and --valid/--test exclude each other');
  if (path !== undefined) return { kind: 'sequences', path };
  if (folds !== undefined) return { kind: 'folds', folds };
  return readParts(parts[0], parts[1]);
}

function readParts(valid: string | undefined, test: string | undefined): Division {
  const isShare = (text: string | undefined): boolean => text === undefined || Number.isFinite(Number(text));
  if (isShare(valid) && isShare(test)) {
    return { kind: 'fractions', valid: Number(valid ?? DEFAULT_SHARE), test: Number(test ?? DEFAULT_SHARE) };
  }
  if ((valid !== undefined && isShare(valid)) || (test !== undefined && isShare(test)))
    throw new UsageError(
      `--valid is ${valid} and --test is ${test}; give chromosomes for both, or shares for both`,
    );
  return { kind: 'chromosomes', valid: valid?.split(',') ?? [], test: test?.split(',') ?? [] };
}

function readBeds(options: Options): Partial<PrepareOptions> {
  const names = ['gaps', 'limit', 'blacklist', 'unmappable', 'peaks'] as const;
  return Object.fromEntries(
    names.flatMap((name) => (options.text(name) === undefined ? [] : [[name, options.text(name)]])),
  );
}

function stride(options: Options, name: string, lengthBp: number): number {
  const value = options.number(name) ?? 1;
  return Math.round(value <= 1 ? value * lengthBp : value);
}

/** What it takes in memory depends on the threads; without any, nothing is written. */
function announce(plan: PreparePlan, threads: number | undefined, output: Output): void {
  const { options, sequences, dropped, targetLength, memory, warnings, notes } = plan;
  const records = Object.fromEntries(sequences.splits.map(({ split, count }) => [split, count]));
  const stated = threads === undefined ? undefined : memory.stated(threads, sequences.length);
  output.event({
    event: 'plan',
    records,
    dropped,
    targetLength,
    tracks: options.tracks.length,
    ...(stated && { memory: stated }),
    warnings,
    notes,
  });
  for (const text of notes) output.say(`note: ${text}`);
  for (const text of warnings) output.say(`warning: ${text}`);
  const splits = Object.entries(records).map(([split, count]) => `${count} ${split}`);
  output.say(
    `${sequences.length} sequences (${splits.join(', ')}; ${dropped.unmappable} dropped as unmappable) of ${options.sequenceLengthBp} bp, ${options.tracks.length} ${options.contacts ? 'contact maps' : 'tracks'} of ${targetLength} targets in bins of ${options.poolWidthBp} bp`,
  );
  if (stated === undefined) return;
  const parts = Object.entries(stated).filter(([, bytes]) => bytes > 0);
  const total = parts.reduce((sum, [, bytes]) => sum + bytes, 0);
  output.say(
    `memory: up to ${inMib(total)} MiB (${parts.map(([name, bytes]) => `${name} ${inMib(bytes)}`).join(', ')})`,
  );
}

function inMib(bytes: number): number {
  return Math.ceil(bytes / 2 ** 20);
}

async function describe(out: string, plan: PreparePlan, output: Output): Promise<void> {
  const records = await usage(() => describeDataset(out, plan));
  output.event({ event: 'end', out, records, warnings: plan.warnings });
  output.say(
    `${out}: no records are written; they are read from the genome and its tracks, which have to stay as they are: \`cohesin train --data ${out}\``,
  );
}

async function write(out: string, plan: PreparePlan, threads: number, output: Output): Promise<void> {
  const start = performance.now();
  const progress = (done: number, total: number): void => {
    const seconds = (performance.now() - start) / 1000;
    const left = duration((seconds * (total - done)) / done);
    output.progress(
      `${Math.floor((100 * done) / total)} %: ${done}/${total} windows of tracks, ${left} left`,
    );
  };
  const { records, tracks, warnings } = await runPrepare(out, plan, {
    ...{ threads, progress },
    note: (text) => {
      output.say(`note: ${text}`);
      output.event({ event: 'note', text });
    },
  });
  output.endProgress();
  for (const text of warnings.slice(plan.warnings.length)) output.say(`warning: ${text}`);
  for (const { identifier, mean, max, zeroFraction, clippedFraction } of tracks) {
    output.say(
      `${identifier}: mean ${mean.toPrecision(4)}, max ${max.toPrecision(4)}, ${(100 * zeroFraction).toFixed(1)} % zero, ${(100 * clippedFraction).toFixed(1)} % clipped`,
    );
  }
  const seconds = (performance.now() - start) / 1000;
  const peakBytes = process.resourceUsage().maxRSS * 1024;
  output.event({ event: 'end', out, records, tracks, warnings, seconds, peakBytes });
  output.say(
    `${out}: written in ${duration(seconds)}, with ${inMib(peakBytes)} MiB of memory at most; see provenance.html there, and \`cohesin train --data ${out}\``,
  );
}
