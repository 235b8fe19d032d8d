/** Genes of a BED file, and where the bins of a data set's sequences lie: what metrics of genes need. */
import { join } from 'node:path';
import {
  type Dataset,
  type Interval,
  readBed,
  SUM_STATISTICS,
  type TrackTransform,
  untransformTargets,
} from '@cohesin/io';
import { type BinPlace, type Gene, type GeneCollector, geneCollector } from '@cohesin/models';

/** Compares genes with predictions, sequence by sequence in the order of the data set. */
export interface GeneComparison extends Pick<GeneCollector, 'metrics'> {
  /** Prediction and target of the next sequence, [bins, tracks]. */
  add(predicted: Float32Array, target: Float32Array): void;
}

/**
 * Reads genes and places before any work.
 *
 * @param path rows of one name are one gene, its exons; the sixth column may give the strand
 * @throws when a file cannot be read, a row has no name, or a gene lies on two chromosomes or strands
 */
export async function openGenes(path: string, dataset: Dataset, split: string): Promise<GeneComparison> {
  const genes = await readGenes(path);
  const places = await readPlaces(dataset, split);
  const { numTargets: tracks, poolWidthBp: binBp, targets } = dataset;
  const transforms = targets.map(({ columns }) => transformOf(columns));
  const coverage = (values: Float32Array): ArrayLike<number> =>
    transforms.every((transform) => transform === undefined) ? values : untransformed(values, transforms);
  const collector = geneCollector(genes, { tracks, binBp, byStrand: strandsOf(dataset) });
  let sequence = 0;
  return {
    add: (predicted, target) => {
      const place = places[sequence++];
      if (place === undefined)
        throw new Error(
          `${dataset.dir}: the split '${split}' has more records than the ${places.length} rows of sequences.bed; genes cannot be found in them`,
        );
      // Bins lie in the middle of a row, whether it is the whole sequence or what is left of it after cropping.
      const slackBp = place.endBp - place.startBp - (target.length / tracks) * binBp;
      const bins: BinPlace = { chrom: place.chrom, startBp: place.startBp + slackBp / 2 };
      collector.add(bins, coverage(predicted), coverage(target));
    },
    metrics: collector.metrics,
  };
}

async function readGenes(path: string): Promise<readonly Gene[]> {
  const genes = new Map<string, Gene & { readonly spans: [number, number][] }>();
  for await (const { chrom, startBp, endBp, rest, line } of readBed(path)) {
    const [name, , strand = '.'] = rest;
    if (name === undefined)
      throw new Error(`${path}: line ${line}: a gene needs a name in the fourth column`);
    if (strand !== '+' && strand !== '-' && strand !== '.')
      throw new Error(`${path}: line ${line}: the strand is '${strand}'; it must be +, − or a point`);
    const gene = genes.get(name) ?? { name, chrom, strand, spans: [] };
    if (gene.chrom !== chrom || gene.strand !== strand)
      throw new Error(
        `${path}: line ${line}: ${name} is on ${chrom} ${strand} here and on ${gene.chrom} ${gene.strand} before; give them two names`,
      );
    gene.spans.push([startBp, endBp]);
    genes.set(name, gene);
  }
  return [...genes.values()];
}

async function readPlaces({ dir }: Dataset, split: string): Promise<Interval[]> {
  const places: Interval[] = [];
  for await (const { chrom, startBp, endBp, rest } of readBed(join(dir, 'sequences.bed')))
    if (rest[0] === split) places.push({ chrom, startBp, endBp });
  return places;
}

/** Partners by strand: of two tracks whose identifiers end in + and −, genes take the one of their strand. */
function strandsOf({
  numTargets,
  targets,
}: Dataset): readonly { readonly plus: number; readonly minus: number }[] {
  return Array.from({ length: numTargets }, (_, track) => {
    const pair = targets[track]?.strandPair ?? track;
    const isMinus = targets[track]?.identifier.endsWith('-') === true;
    return isMinus ? { plus: pair, minus: track } : { plus: track, minus: pair };
  });
}

/** What `targets.txt` says was done to coverage; undefined where nothing is to be undone. */
function transformOf(columns: Readonly<Record<string, string>>): TrackTransform | undefined {
  const { sum_stat: stated = 'sum', clip_soft: soft = '' } = columns;
  const statistic = SUM_STATISTICS.find((known) => known === stated) ?? 'sum';
  const clipSoft = soft === '' ? Number.POSITIVE_INFINITY : Number(soft);
  if (clipSoft === Number.POSITIVE_INFINITY && !/_sqrt$|_exp75$|^peak$/.test(statistic)) return undefined;
  return { statistic, scale: 1, clipSoft };
}

/** Coverage behind [bins, tracks], times the tracks' scales: baskerville's `untransform_preds`. */
function untransformed(
  values: Float32Array,
  transforms: readonly (TrackTransform | undefined)[],
): Float64Array {
  const tracks = transforms.length;
  const result = Float64Array.from(values);
  for (const [track, transform] of transforms.entries()) {
    if (transform === undefined) continue;
    const own = result.filter((_, i) => i % tracks === track);
    const back = untransformTargets(own, transform, { published: false });
    for (const [bin, value] of back.entries()) result[bin * tracks + track] = value;
  }
  return result;
}
