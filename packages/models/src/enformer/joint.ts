/** Enformer by name and parameters, with how it was trained. */
import { fields } from '../builder/fields.ts';
import { type Head, type JointModel, joined } from '../builder/model.ts';
import { readTraining, type TrainConfig } from '../builder/training.ts';
import { ENFORMER_TRACKS, enformer } from './model.ts';
import { enformerWeights } from './weights.ts';

/** Whether parameters describe an Enformer. */
export function isEnformer(params: unknown): boolean {
  return (
    params === 'enformer' || (params as { model?: { name?: unknown } } | null)?.model?.name === 'enformer'
  );
}

/**
 * Enformer with heads for some of its genomes, from `enformer` or `{ model: { name: 'enformer', seq_length, channels,
 * tower_repeats, filters, transformer_blocks, heads, key_size, target_bins, tracks: { human: 5313, mouse: 1643 },
 * dropout, … }, train }`; what is not stated is as published. Trained with Adam (Sonnet's form) at 5e-4 after 5,000 steps
 * of warm-up, all gradients held to norm 0.2, reverse complement and shifts of ±3 bp; genomes take turns.
 *
 * @throws when an option is unknown, or the model has no such head
 */
export function enformerModels(params: unknown, names?: readonly string[]): JointModel {
  const file = fields(typeof params === 'string' ? { model: { name: params } } : params, 'params');
  const given = fields(file.value('model'), 'model');
  const stated = (file.value('train') ?? {}) as Readonly<Record<string, unknown>>;
  file.finish();
  const lengthBp = given.integer('seq_length', 196_608);
  const tracks = (given.value('tracks') ?? ENFORMER_TRACKS) as Readonly<Record<string, number>>;
  const heads = names ?? Object.keys(tracks);
  const missing = heads.filter((name) => !Object.hasOwn(tracks, name));
  if (missing.length > 0)
    throw new Error(`enformer: no head ${missing.join(', ')}; it has ${Object.keys(tracks).join(', ')}`);
  const targetBins = given.integer('target_bins', 896);
  const repeats = given.integer('tower_repeats', 6);
  const size = (name: string, key: string): Record<string, number> =>
    given.has(name) ? { [key]: given.number(name) } : {};
  given.skip('name');
  const filters = given.has('filters') ? { filters: given.integers('filters') } : {};
  const model = enformer({
    lengthBp,
    targetBins,
    towerRepeats: repeats,
    ...filters,
    ...size('channels', 'channels'),
    ...size('transformer_blocks', 'transformerBlocks'),
    ...size('heads', 'heads'),
    ...size('key_size', 'keySize'),
    ...size('position_features', 'positionFeatures'),
    ...size('dropout', 'dropout'),
    ...size('attention_dropout', 'attentionDropout'),
    ...size('head_dropout', 'headDropout'),
    tracks: Object.fromEntries(heads.map((name) => [name, tracks[name]!])),
  });
  given.finish();
  const binBp = 2 ** (filters.filters?.length ?? repeats + 1);
  const headOf = (name: string): Head => ({
    layer: model.heads[name]!,
    config: {
      sequenceLengthBp: lengthBp,
      targetLength: targetBins,
      targets: tracks[name]!,
      binBp,
      cropBp: (lengthBp - targetBins * binBp) / 2,
      outputShape: [targetBins, tracks[name]!],
      link: 'softplus',
      augment: { reverseComplement: true, shiftBp: 3 },
      strandPair: undefined,
    },
  });
  const joint = joined({
    trunk: model.trunk,
    heads: new Map(heads.map((name) => [name, headOf(name)])),
    train: { ...readTraining({ ...TRAIN, ...stated }), ...SONNET },
  });
  return { ...joint, published: () => enformerWeights(joint.model) };
}

const TRAIN = {
  optimizer: 'adam',
  learning_rate: 5e-4,
  warmup_steps: 5000,
  global_clipnorm: 0.2,
  batch_size: 64,
  alternation: 'turns',
};
const SONNET: Partial<TrainConfig> = { adamForm: 'torch', epsilon: 1e-8 };
