/** A small BPNet and a small ChromBPNet on real yeast ATAC-seq, on a chromosome that none has seen. */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { f16ToF32, openDataset, openFragments, openGenome } from '@cohesin/io';
import { ProfileMeasure } from '@cohesin/models';
import { cohesin, commandEnvironment, minutesOf, RUNS } from './command.ts';
import { publish, ROOT, table } from './report.ts';

const YEAST = join(ROOT, '../shared/data/yeast');
const GENOME = join(YEAST, 'sacCer3.2bit');
const FRAGMENTS = join(YEAST, 'yeast_500k_SRR1822137.bedpe.gz');
const OUT = join(RUNS, 'bpnet');
const RDNA = 'chrXII\t451000\t469000\n'; // 38 % of the fragments lie there

// Four dilated layers see 77 bp beyond the profile.
const [PROFILE_BP, TRIMMING_BP, JITTER_BP] = [256, 77, 64];
const LENGTH_BP = PROFILE_BP + 2 * TRIMMING_BP;
const EPOCHS = { bpnet: 5, bias: 2, chrombpnet: 3 };
const COUNT_WEIGHT = 2; // the same for all, so that losses compare
const TRAIN = { learning_rate: 0.002, batch_size: 32 };
const SIZE = { seq_length: LENGTH_BP, trimming: TRIMMING_BP, dilated_layers: 4 };
const MODELS = {
  bpnet: { name: 'bpnet-lite', ...SIZE, filters: 16, augment_jitter: JITTER_BP },
  bias: { name: 'chrombpnet-bias', ...SIZE, filters: 8, dilated_layers: 2 },
  chrombpnet: {
    name: 'chrombpnet',
    ...SIZE,
    filters: 16,
    augment_jitter: JITTER_BP,
    bias: { filters: 8, dilated_layers: 2 },
  },
};

/** The numbers of an evaluation: means over strands. */
interface Row {
  readonly name: string;
  readonly loss: number;
  readonly jsd: number;
  readonly pearson: number;
  readonly countPearson: number;
  readonly countSpearman: number;
  readonly countMse: number;
}

export async function bpnet(): Promise<void> {
  if (!existsSync(YEAST)) {
    console.log(`bpnet: left out, for ${YEAST} is not there`);
    return;
  }
  mkdirSync(OUT, { recursive: true });
  const where = commandEnvironment(join(OUT, 'devices.log'));
  const peaks = await callPeaks();
  const sets = prepareSets();
  const bpnetRun = train('bpnet', ['--data', sets.stranded]);
  const stranded = [
    await meanProfile('mean profile, mean log count', sets.stranded, [[0, 1]]),
    evaluate('BPNet', bpnetRun.best, sets.stranded),
  ];
  console.log(rowsTable(stranded));
  const bias = train('bias', ['--data', sets.background]);
  const full = train('chrombpnet', [
    '--data',
    sets.peaks,
    '--bias',
    bias.best,
    '--negatives',
    sets.background,
  ]);
  const unstranded = [
    await meanProfile('mean profile, mean log count', sets.peaks, [[0]]),
    evaluate('ChromBPNet', full.best, sets.peaks),
    evaluate('ChromBPNet without its bias model', full.best, sets.peaks, ['--without-bias']),
  ];
  publish({
    name: 'bpnet',
    title: 'A small BPNet and a small ChromBPNet, on yeast',
    environment: where,
    text: [
      `\`npm run bench -- --only bpnet\`, with \`../shared/data/yeast\` beside the repository: ATAC-seq of yeast (467,908 fragments), both ends of each moved by 4 and -4 bp, at base resolution. ${peaks} summits of cuts in 150 bp, at least three times the mean, stand for peaks; the rDNA of chrXII is blacklisted. Windows of ${LENGTH_BP} bp predict their inner ${PROFILE_BP}; ${sets.counts}. chrXVI is held out, chrII chooses the epoch. The baseline predicts, everywhere, the mean profile of the training windows and the mean of their log counts.`,
      'Two strands of cuts under one multinomial, chrXVI (JSD in nats and Pearson r: means over sequences and strands; counts: logarithms):',
      rowsTable(stranded),
      'Cuts of both strands together, chrXVI:',
      rowsTable(unstranded),
      `BPNet: 16 filters, 4 dilated layers; ChromBPNet: the same, with a bias model of 8 filters and 2 layers trained before on as many background windows as there are peaks, matched by G and C. Adam at ${TRAIN.learning_rate}, batch ${TRAIN.batch_size}, counts weighted by ${COUNT_WEIGHT}; ${EPOCHS.bpnet} epochs and ${bpnetRun.minutes.toFixed(1)} CPU min for BPNet, ${EPOCHS.bias} and ${bias.minutes.toFixed(1)} for the bias model, ${EPOCHS.chrombpnet} and ${full.minutes.toFixed(1)} for ChromBPNet. The command: \`cohesin train --model MODEL.json --data DIR --out RUN\`, for ChromBPNet with \`--bias BIAS/best --negatives BACKGROUND\`; then \`cohesin evaluate --checkpoint RUN/best --data DIR\`.`,
    ].join('\n\n'),
    data: { peaks, stranded, unstranded },
  });
}

/** Places where most ends lie within 150 bp, none within 250 bp of a higher one; gives how many. */
async function callPeaks(): Promise<number> {
  const genome = await openGenome(GENOME);
  const track = await openFragments(FRAGMENTS, genome.chromosomes);
  const [halfBp, apartBp] = [75, 250];
  const rows: string[] = [];
  const nuclear = [...genome.chromosomes].filter(([name]) => name !== 'chrM');
  for (const [chrom, lengthBp] of nuclear) {
    const cuts = await track.read(chrom, 0, lengthBp);
    const before = new Float64Array(lengthBp + 1);
    for (const [i, count] of cuts.entries()) before[i + 1] = before[i]! + count;
    const near = (i: number): number => before[i + halfBp]! - before[i - halfBp]!;
    const ordinary = cuts.toSorted()[Math.floor(lengthBp * 0.999)]!; // the rDNA would lift the mean
    const mean = cuts.reduce((sum, count) => sum + Math.min(count, ordinary), 0) / lengthBp;
    const candidates = Array.from({ length: Math.floor(lengthBp / 10) }, (_, i) => 10 * i)
      .filter((i) => i >= halfBp && i + halfBp <= lengthBp && near(i) >= 3 * 2 * halfBp * mean)
      .sort((a, b) => near(b) - near(a));
    const taken = new Uint8Array(lengthBp);
    for (const summit of candidates) {
      if (taken[summit]) continue;
      taken.fill(1, Math.max(0, summit - apartBp), summit + apartBp + 1);
      rows.push(
        `${chrom}\t${summit - halfBp}\t${summit + halfBp}\t.\t0\t.\t${near(summit)}\t0\t0\t${halfBp}\n`,
      );
    }
  }
  await track.close();
  await genome.close();
  writeFileSync(join(OUT, 'peaks.narrowPeak'), rows.join(''));
  return rows.length;
}

interface Sets extends Readonly<Record<'stranded' | 'peaks' | 'background', string>> {
  /** Sequences of each, in words. */
  readonly counts: string;
}

function prepareSets(): Sets {
  const table = (strands: readonly string[]): string => {
    const path = join(OUT, `${strands.length}-strands.txt`);
    const rows = strands.map((strand, i) => {
      const pair = strands.length === 2 ? 1 - i : 0;
      return `${i}\tATAC ${strand}\t${FRAGMENTS}\tsum\t${strand}\t4\t-4\t${pair}\tcuts\n`;
    });
    const columns = 'identifier\tfile\tsum_stat\tstrand\tshift_plus\tshift_minus\tstrand_pair\tdescription';
    writeFileSync(path, `\t${columns}\n${rows.join('')}`);
    return path;
  };
  writeFileSync(join(OUT, 'blacklist.bed'), RDNA);
  const places = `--peaks ${join(OUT, 'peaks.narrowPeak')} --blacklist ${join(OUT, 'blacklist.bed')} --bin 1 --crop ${TRIMMING_BP} --valid chrII --test chrXVI`;
  const make = (name: string, targets: string, more: string): { dir: string; said: string } => {
    const dir = join(OUT, name);
    const args = `--genome ${GENOME} --targets ${targets} ${places} ${more} --out ${dir}`;
    const [plan] = cohesin(['prepare', ...args.split(' ')], `${dir}.log`);
    const { train, valid, test } = (plan as { records: Record<string, number> }).records;
    return { dir, said: `${name}: ${train} to train, ${valid} to choose, ${test} to report` };
  };
  const whole = `--length ${LENGTH_BP + 2 * JITTER_BP}`;
  const stranded = make('stranded', table(['+', '-']), whole);
  const peaks = make('peaks', table(['both']), whole);
  const background = make('background', table(['both']), `--length ${LENGTH_BP} --background 1`);
  return {
    stranded: stranded.dir,
    peaks: peaks.dir,
    background: background.dir,
    counts: `${peaks.said}; ${background.said}`,
  };
}

interface Trained {
  readonly best: string;
  readonly minutes: number;
}

/** Gives the best checkpoint. */
function train(name: keyof typeof MODELS, args: readonly string[]): Trained {
  const model = join(OUT, `${name}.json`);
  const out = join(OUT, `${name}-run`);
  writeFileSync(
    model,
    JSON.stringify({
      model: { ...MODELS[name], count_weight: COUNT_WEIGHT },
      train: { ...TRAIN, train_epochs_max: EPOCHS[name] },
    }),
  );
  const events = cohesin(['train', '--model', model, '--out', out, ...args], `${out}.log`);
  return { best: join(out, 'best'), minutes: minutesOf(events) };
}

type Evaluated = {
  readonly loss: number;
  readonly tracks: readonly { readonly jsd: number; readonly pearson: number }[];
  readonly counts: readonly Pick<Row, 'countPearson' | 'countSpearman' | 'countMse'>[];
};

function evaluate(name: string, checkpoint: string, data: string, more: readonly string[] = []): Row {
  const log = `${checkpoint}${more.join('')}-test.log`;
  const [event] = cohesin(['evaluate', '--checkpoint', checkpoint, '--data', data, ...more], log);
  return rowOf(name, event as Evaluated);
}

function rowOf(name: string, { loss, tracks, counts }: Evaluated): Row {
  const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
  return {
    name,
    loss,
    jsd: mean(tracks.map(({ jsd }) => jsd)),
    pearson: mean(tracks.map(({ pearson }) => pearson)),
    ...counts[0]!,
  };
}

/** The same prediction for every test window: shares and log counts as in the training windows on average. */
async function meanProfile(name: string, dir: string, groups: readonly (readonly number[])[]): Promise<Row> {
  const dataset = await openDataset(dir);
  const tracks = dataset.numTargets;
  const margin = (dataset.targetLength - PROFILE_BP) / 2;
  const sums = new Float64Array(PROFILE_BP * tracks);
  let [logCounts, sequences] = [0, 0];
  const windows = async function* (split: string): AsyncGenerator<Float32Array> {
    for await (const { record } of dataset.stream(split))
      yield f16ToF32(record.targets.data as Uint16Array).slice(
        margin * tracks,
        (margin + PROFILE_BP) * tracks,
      );
  };
  for await (const reads of windows('train')) {
    const total = reads.reduce((a, b) => a + b, 0);
    for (const [i, count] of reads.entries()) sums[i]! += count / Math.max(total, 1);
    logCounts += Math.log1p(total);
    sequences++;
  }
  const measure = new ProfileMeasure({ tracks, groups, countWeight: COUNT_WEIGHT });
  const prediction = { logits: sums.map(Math.log), logCounts: [logCounts / sequences] };
  for await (const reads of windows('test')) measure.add(prediction, reads);
  const { loss, perTrack, perGroup } = measure.result();
  return rowOf(name, { loss, tracks: perTrack, counts: perGroup });
}

function rowsTable(rows: readonly Row[]): string {
  const text = (value: number): string => (Number.isFinite(value) ? value.toFixed(4) : '–');
  return table(
    ['', 'loss', 'profile JSD', 'profile r', 'counts r', 'counts ρ', 'counts MSE'],
    rows.map(({ name, loss, ...numbers }) => [
      name,
      loss.toFixed(2),
      ...[numbers.jsd, numbers.pearson, numbers.countPearson, numbers.countSpearman, numbers.countMse].map(
        text,
      ),
    ]),
  );
}
