/** Models from the JSON files of Basenji and baskerville. */
import { nn, type Tensor } from '@cohesin/core';
import type { Published, PublishedWeights } from '../load-weights.ts';
import { block } from './blocks.ts';
import { type Fields, fields } from './fields.ts';
import type { Block, Flow } from './flow.ts';
import { type ActivationName, activationOf, type Gelu, readShared, type Shared } from './shared.ts';
import { kept, type Skip } from './skips.ts';
import { readTraining, type TrainConfig } from './training.ts';
import { kerasWeights, torchWeights } from './weights.ts';

/** What predictions are averaged over in evaluation. */
export interface Ensemble {
  /** Of each sequence and its reverse complement. */
  readonly reverseComplement: boolean;
  /** Shifts to the right, 0 for the sequence as it is. */
  readonly shiftsBp: readonly number[];
}

/** What a model reads and gives. */
export interface ModelConfig {
  readonly sequenceLengthBp: number;
  /** Rows that come out: bins of `binBp`. */
  readonly targetLength: number;
  /** Channels that come out: tracks. */
  readonly targets: number;
  readonly binBp: number;
  /** Bases at each end of the sequence that no bin covers. */
  readonly cropBp: number;
  /** Shape of one sequence's output. */
  readonly outputShape: readonly number[];
  /** What makes predictions of the last linear layer; part of the model, unless the model gives logits. */
  readonly link: ActivationName | 'exp_linear';
  readonly augment: {
    readonly reverseComplement: boolean;
    /** Training sequences are shifted by up to this many bases to either side. */
    readonly shiftBp: number;
  };
  /** As the file asks for; a single prediction otherwise. */
  readonly ensemble?: Ensemble;
  /** The track that each track becomes on the other strand, when stated. */
  readonly strandPair: readonly number[] | undefined;
  /** Where the rows are pairs of bins: the map whose upper triangle they are, and how many diagonals it leaves out. */
  readonly triangle?: Flow['triangle'] & {};
}

/** A model with what its file says about it. */
export interface BuiltModel extends Published {
  /** x one-hot [batch, length, 4] → [batch, bins, tracks]. */
  readonly model: nn.Layer;
  /** The same in predictions, for a model that gives logits. */
  readonly predict: (x: Tensor) => Tensor;
  readonly config: ModelConfig;
  readonly train: TrainConfig;
}

export interface BuilderOptions {
  /** The head to build, as in `head_human`; by default the first in the order of names. */
  readonly head?: string;
  /**
   * The form of GELU; by default the file's `model.gelu`. Where that is silent: `tanh` if the trunk has a block that only
   * baskerville knows (`res_tower`, `unet_conv`, `unet_concat`), and `sigmoid`, that of the published Basenji2, if not.
   */
  readonly gelu?: Gelu;
}

/**
 * The model of a Basenji `params.json`: `{ train, model: { seq_length, activation, norm_type, bn_momentum, trunk: [...],
 * head_human: {...} } }`. The trunk's blocks, one activation, the blocks of one head. Besides Basenji's options the
 * model may state `gelu` (`gelu_sigmoid`, `gelu_tanh`, `gelu_erf`) and `bn_eps`.
 *
 * @throws when a block or an option is unknown, or sizes contradict each other; the error names the place, as
 *   `model.trunk[3].filters`.
 */
export function modelFromParams(params: unknown, { head, gelu }: BuilderOptions = {}): BuiltModel {
  const { trunk, activation, heads, train } = build(params, [head], gelu);
  const [{ layer: own, config }] = heads as [Head];
  const parts = { trunk, head: own };
  const layer = nn.layer(parts, (x: Tensor) => parts.head(activation(parts.trunk(x))));
  const published = (): readonly PublishedWeights[] => [
    { format: 'keras', map: kerasWeights(layer) },
    { format: 'torch', map: torchWeights(layer) },
  ];
  return { model: layer, predict: layer, config, train, published };
}

/** One trunk with a head for each genome: all weights are `trunk.…` and `heads.<name>.…`. */
export interface JointModel extends Published {
  /** The model that ends in one of the heads; their trunk is the same. */
  readonly byHead: ReadonlyMap<string, BuiltModel>;
  readonly train: TrainConfig;
}

/**
 * The models of a parameter file with several heads (`head_human`, `head_mouse`), as Basenji2 and Enformer were trained on two
 * genomes: those that are named, by default all.
 *
 * @throws as `modelFromParams`, and when there is no such head
 */
export function jointFromParams(params: unknown, heads?: readonly string[]): JointModel {
  const names = heads ?? headsOf(params);
  const { heads: built, ...rest } = build(params, names, undefined);
  return joined({ ...rest, heads: new Map(built.map((head, i) => [names[i]!, head])) });
}

/** A joint model of a trunk, what comes between, and heads. */
export function joined({
  trunk,
  activation = (x) => x,
  heads,
  train,
}: {
  readonly trunk: nn.Layer;
  readonly activation?: (x: Tensor) => Tensor;
  readonly heads: ReadonlyMap<string, Head>;
  readonly train: TrainConfig;
}): JointModel {
  const byHead = new Map(
    [...heads].map(([name, { layer, config }]): [string, BuiltModel] => {
      const one = nn.layer({ [name]: layer }, layer);
      const model = nn.layer({ trunk, heads: one }, (x: Tensor) => one(activation(trunk(x))));
      return [name, { model, predict: model, config, train, published: () => [] }];
    }),
  );
  const layers = Object.fromEntries([...heads].map(([name, { layer }]) => [name, layer]));
  const all = nn.layer<Tensor, Record<string, Tensor>>(layers, (x: Tensor) =>
    Object.fromEntries(Object.entries(layers).map(([name, layer]) => [name, layer(x)])),
  );
  return {
    model: nn.layer({ trunk, heads: all }, (x: Tensor) => all(activation(trunk(x)))),
    byHead,
    train,
    published: () => [],
  };
}

/** What follows the trunk. */
export interface Head {
  readonly layer: nn.Layer;
  readonly config: ModelConfig;
}

function build(
  params: unknown,
  names: readonly (string | undefined)[],
  gelu: Gelu | undefined,
): { trunk: nn.Layer; activation: (x: Tensor) => Tensor; heads: readonly Head[]; train: TrainConfig } {
  const file = fields(params, 'params');
  const model = fields(file.value('model'), 'model');
  const train = readTraining(file.value('train') ?? {});
  file.finish();

  const shared = readShared(model, { gelu, otherwise: geluOfFile(model) });
  const sequenceLengthBp = model.integer('seq_length');
  const input: Flow = { length: sequenceLengthBp, channels: 4, binBp: 1, cropBp: 0 };
  const { layer: trunk, output } = blocks(model, 'trunk', shared, input, kept);
  const heads = names.map((head): Head => {
    const { layer, output: flow } = blocks(model, chooseHead(model, params, head), shared, output);
    return { layer, config: readConfig(model, sequenceLengthBp, flow) };
  });
  model.skip('verbose');
  model.finish();
  return { trunk, activation: activationOf(shared.activation, shared.gelu), heads, train };
}

/** Blocks that only baskerville has: its files mean TensorFlow's GELU, which is the tanh form. */
const BASKERVILLE = ['res_tower', 'unet_conv', 'unet_concat'];

function geluOfFile(model: Fields): Gelu {
  const names = model
    .objects('trunk')
    .map((options) => (options as { readonly name?: unknown } | null)?.name);
  return names.some((name) => BASKERVILLE.includes(name as string)) ? 'tanh' : 'sigmoid';
}

/** The blocks under one key, one after the other. */
function blocks(
  model: Fields,
  name: string,
  shared: Shared,
  input: Flow,
  finish: (block: Block, skips: Skip[]) => Block = (block) => block,
): Block {
  const list = model.objects(name);
  let flow = input;
  const layers = list.map((options, i) => {
    const where = Array.isArray(model.value(name)) ? `model.${name}[${i}]` : `model.${name}`;
    const { layer, output } = finish(block(fields(options, where), shared, flow), shared.skips);
    flow = output;
    return layer;
  });
  return { layer: nn.sequential(layers), output: flow };
}

/** The names of a file's heads, `head_human` as `human`. */
function headsOf(params: unknown): string[] {
  const { model } = params as { readonly model?: object };
  return Object.keys(model ?? {}).flatMap((key) => /^head_(.+)/.exec(key)?.[1] ?? []);
}

function chooseHead(model: Fields, params: unknown, head: string | undefined): string {
  const { model: given } = params as { model: Record<string, unknown> };
  const heads = Object.keys(given)
    .filter((name) => name.startsWith('head'))
    .sort();
  model.skip(...heads);
  const name = head === undefined ? heads[0] : [head, `head_${head}`].find((key) => heads.includes(key));
  if (name !== undefined) return name;
  const wanted = head === undefined ? 'the model has no head' : `there is no head '${head}'`;
  throw new Error(`model: ${wanted}; it has ${heads.join(', ') || 'no key that starts with head'}`);
}

function readConfig(model: Fields, sequenceLengthBp: number, output: Flow): ModelConfig {
  const { length, channels, binBp, cropBp } = output;
  const config: ModelConfig = {
    sequenceLengthBp,
    targetLength: length,
    targets: channels,
    binBp,
    cropBp,
    outputShape: [length, channels],
    link: output.activation ?? 'linear',
    augment: { reverseComplement: model.flag('augment_rc', false), shiftBp: readShift(model) },
    ensemble: readEnsemble(model),
    strandPair: readStrandPair(model, channels),
    ...(output.triangle && { triangle: output.triangle }),
  };
  checkStated(model, config);
  return config;
}

function readShift(model: Fields): number {
  const given = model.value('augment_shift') ?? 0;
  const shift: unknown = Array.isArray(given) && given.length === 1 ? given[0] : given;
  if (typeof shift === 'number' && Number.isInteger(shift) && shift >= 0) return shift;
  throw new Error(`model.augment_shift: expected the largest shift in bp, found ${JSON.stringify(given)}`);
}

function readEnsemble(model: Fields): Ensemble {
  const shiftsBp: unknown = model.value('ensemble_shifts') ?? [0];
  if (!Array.isArray(shiftsBp) || shiftsBp.length === 0 || !shiftsBp.every(Number.isInteger))
    throw new Error(
      `model.ensemble_shifts: expected a list of shifts in bp, found ${JSON.stringify(shiftsBp)}`,
    );
  return { reverseComplement: model.flag('ensemble_rc', false), shiftsBp: shiftsBp as number[] };
}

/** `strand_pair` is a list of tracks, or one list per head, of which the first is taken. */
function readStrandPair(model: Fields, tracks: number): readonly number[] | undefined {
  const given = model.value('strand_pair');
  const list: unknown = Array.isArray(given) && Array.isArray(given[0]) ? given[0] : given;
  if (!Array.isArray(list) || list.length === 0) return undefined;
  const isTrack = (x: unknown): boolean =>
    Number.isInteger(x) && (x as number) >= 0 && (x as number) < tracks;
  if (list.length === tracks && list.every(isTrack)) return list as number[];
  throw new Error(
    `model.strand_pair: expected ${tracks} tracks below ${tracks}, found ${list.length} entries`,
  );
}

/** What a file states beside the blocks must be what comes of them. */
function checkStated(model: Fields, config: ModelConfig): void {
  const { targets, binBp, cropBp, triangle } = config;
  const bins = triangle?.length ?? config.targetLength;
  const uncropped = bins + (2 * cropBp) / binBp; // published Basenji2 and Akita state the bins before they crop
  equal(model, 'target_length', bins, 'bins', uncropped);
  equal(model, 'target_crop', cropBp / binBp, 'bins cropped at each end');
  if (triangle !== undefined) equal(model, 'diagonal_offset', triangle.offset, 'diagonals left out');
  equal(model, 'target_pool', binBp, 'bp per bin');
  equal(model, 'num_targets', targets, 'tracks');
}

function equal(model: Fields, name: string, built: number, unit: string, or: number = built): void {
  if (!model.has(name)) return;
  const stated = model.number(name);
  if (stated === built || stated === or) return;
  throw new Error(
    `model.${name}: the file states ${stated} but its blocks give ${built} ${unit}${or === built ? '' : ` (${or} before cropping)`}; set ${name}: ${built} or change the blocks`,
  );
}

/** Sizes of a data set, as its `statistics.json` has them. */
export interface DataSizes {
  readonly sequenceLengthBp: number;
  readonly targetLength: number;
  readonly numTargets: number;
  readonly poolWidthBp: number;
  readonly cropBp: number;
  /** Of contact maps: diagonals left out. */
  readonly diagonalOffset?: number;
}

/**
 * Whether a data set fits a model. A data set of tracks may hold the bins that the model crops; then `cropBins` at each
 * end of its targets are to be left out.
 *
 * @throws with both sides of every size that differs.
 */
export function checkData(config: ModelConfig, data: DataSizes): { readonly cropBins: number } {
  const differing = [
    ['sequence length in bp', config.sequenceLengthBp, data.sequenceLengthBp, 'model.seq_length'],
    ['bp per bin', config.binBp, data.poolWidthBp, 'the pool sizes'],
    ['tracks', config.targets, data.numTargets, 'the units of the head'],
    ['diagonals left out', config.triangle?.offset, data.diagonalOffset, 'the diagonal_offset of upper_tri'],
  ] as const;
  const faults = differing
    .filter(([, model, given]) => model !== given)
    .map(
      ([what, model, given, change]) =>
        `${what}: the model has ${model ?? 'no map'}, the data ${given ?? 'no map'}; change ${change}`,
    );
  const cropBins = (config.cropBp - data.cropBp) / config.binBp;
  const rows = config.targetLength + 2 * cropBins;
  const isCropped = cropBins >= 0 && Number.isInteger(cropBins) && rows === data.targetLength;
  const isMap = config.triangle !== undefined;
  if (faults.length === 0 && (!isCropped || (isMap && cropBins > 0))) {
    faults.push(
      `${isMap ? 'pairs of bins' : 'bins'}: the model gives ${config.targetLength} after cropping ${config.cropBp} bp, the data has ${data.targetLength} after ${data.cropBp} bp; change the model's ${isMap ? 'cropping_2d' : 'Cropping1D'}`,
    );
  }
  if (faults.length > 0) throw new Error(`the data does not fit the model:\n  ${faults.join('\n  ')}`);
  return { cropBins };
}
