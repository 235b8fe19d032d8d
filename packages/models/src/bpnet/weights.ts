/** Published names of the weights of the BPNet family, and reference files of its models. */
import { log1pRelu, nn, permute, reshape, sum, type Tensor } from '@cohesin/core';
import { fields } from '../builder/fields.ts';
import type { GoldenCase, Tensors } from '../golden-case.ts';
import { type PublishedName, type WeightMap, type WeightMapOptions, weightMap } from '../weight-map.ts';
import { bpnet } from './model.ts';
import { originalBpnet, originalBpnetLoss, type StrandPair } from './original.ts';

const TORCH: readonly (readonly [RegExp, string])[] = [
  [/\bfirst\./, 'iconv.'],
  [/\bdilated\./, 'rconvs.'],
  [/\bprofile\./, 'fconv.'],
  [/\bcounts\./, 'linear.'],
];

/**
 * bpnet-lite's names of a BPNet or a ChromBPNet: `iconv`, `rconvs.<i>`, `fconv`, `linear`, in the latter after
 * `accessibility.` and `bias.`; convolutions [out, in, size], linear layers [out, in].
 */
export function bpnetTorchWeights(model: nn.AnyLayer): WeightMap {
  return weightMap(model, (path, { shape }) => {
    const [pattern, module] = TORCH.find(([candidate]) => candidate.test(path))!;
    return { name: path.replace(pattern, module), axes: shape.length > 1 ? 'reversed' : 'same' };
  });
}

/**
 * The names in the HDF5 files of the ChromBPNet package of a model by itself: `bias.h5`, and with `wo_bias_` before each
 * name `chrombpnet_nobias.h5`.
 */
export function bpnetKerasWeights(model: nn.AnyLayer): WeightMap {
  const publish = (path: string): PublishedName => {
    const [layer, tensor] = kerasName(path);
    return { name: `model_weights/${layer}/${layer}/${tensor}`, axes: 'same' };
  };
  const canonical: WeightMapOptions['canonical'] = (names) =>
    new Map(
      names.map((name) => {
        const [layer, tensor] = name.split('/').slice(-2) as [string, string];
        const own = layer.replace(/^wo_bias_(bpnet_(?=prof|log))?/, '');
        return [name, `model_weights/${own}/${own}/${tensor}`];
      }),
    );
  return weightMap(model, publish, { canonical });
}

/** Layer and tensor of a path within a BPNet: `dilated.0.weight` is `bpnet_1conv`, `kernel:0`. */
export function kerasName(path: string): readonly [string, string] {
  const [part, ...rest] = path.split('.') as [string, ...string[]];
  const tensor = path.endsWith('.weight') ? 'kernel:0' : 'bias:0';
  switch (part) {
    case 'first':
      return ['bpnet_1st_conv', tensor];
    case 'dilated':
      return [`bpnet_${Number(rest[0]) + 1}conv`, tensor];
    case 'profile':
      return ['prof_out_precrop', tensor];
    default:
      return ['logcount_predictions', tensor];
  }
}

/** A reference file's BPNet in either form of bpnet-lite, with its layouts [batch, channels, length]. */
export function bpnetFromGolden(config: unknown): GoldenCase {
  const given = fields(config, 'config');
  const model = bpnet({
    form: given.choice('variant', ['lite', 'basepair']),
    filters: given.integer('n_filters'),
    dilatedLayers: given.integer('n_layers'),
    strands: given.integer('n_outputs'),
    controlTracks: given.integer('n_control_tracks'),
    trimming: given.integer('trimming'),
  });
  return {
    model,
    predict: ({ x, control }) => model({ x: lengthSecond(x!), control: lengthSecond(control!) }),
    ...bpnetGolden(given.number('count_loss_weight')),
    weights: bpnetTorchWeights(model),
    runningStatistics: 'torch',
  };
}

/** What reference files of BPNet and ChromBPNet share: their outputs and their loss. */
export function bpnetGolden(countWeight: number): Pick<GoldenCase, 'loss' | 'outputs'> {
  return {
    loss: ({ logits, logCounts }, { counts }) =>
      nn.bpnetLoss({ logits: logits!, logCounts: logCounts! }, lengthSecond(counts!), { countWeight }),
    outputs: ({ logits, logCounts }, { counts }) => {
      const reads = reshape(sum(counts!, { from: 1, to: 3 }), [-1, 1]);
      return {
        profile_logits: lengthSecond(logits!), // [batch, strands, length]
        log_counts: logCounts!,
        profile_loss: nn.multinomialLoss(logits!, lengthSecond(counts!), { strands: 'joint' }),
        count_loss: nn.mseLoss(logCounts!, log1pRelu(reads)),
      };
    },
  };
}

/** [batch, channels, length] ↔ [batch, length, channels]. */
export const lengthSecond = (x: Tensor): Tensor => permute(x, [0, 2, 1]);

const ORIGINAL: readonly (readonly [RegExp, string])[] = [
  [/^first\.(.*)/, 'conv1.$1'],
  [/^dilated\.(.*)/, 'dil.$1'],
  [/^heads\.(.*)\.profile\.(.*)/, 'prof.$1.$2'],
  [/^heads\.(.*)\.counts\.(.*)/, 'cnt.$1.$2'],
  [/^heads\.(.*)\.profileBias\.weigh\.(.*)/, 'bp.$1.$2'],
  [/^heads\.(.*)\.countsBias\.(.*)/, 'bc.$1.$2'],
];

/**
 * The paper's model as `conv1`, `dil.<i>`, and for each task `prof.<task>` [in, out, size], `cnt.<task>` [out, in],
 * `bp.<task>.weight` and `bc.<task>.weight` [1, in] (bias tracks of profile and counts).
 */
export function originalBpnetWeights(model: nn.AnyLayer): WeightMap {
  return weightMap(model, (path, { shape }): PublishedName | undefined => {
    const found = ORIGINAL.find(([pattern]) => pattern.test(path));
    if (found === undefined) return undefined; // the ones that add up bias tracks
    const name = path.replace(...found);
    const isPoint = name.startsWith('bp.'); // [1, in, 1] here
    return {
      name,
      axes: shape.length > 1 ? 'reversed' : 'same',
      ...(isPoint && { fileShape: [1, shape[1]!] }),
    };
  });
}

/** A reference file's BPNet of the paper. */
export function originalBpnetFromGolden(config: unknown): GoldenCase {
  const given = fields(config, 'config');
  const tasks = given.value('tasks') as readonly string[];
  const model = originalBpnet({
    tasks,
    filters: given.integer('filters'),
    dilatedLayers: given.integer('n_dil_layers'),
    firstSize: given.integer('conv1_kernel_size'),
    profileSize: given.integer('tconv_kernel_size'),
    biasWindows: given.integers('bias_windows'),
  });
  const pairs = (inputs: Tensors, prefix: string): Record<string, StrandPair> =>
    byTask(tasks, (task) => ({
      profile: inputs[`${prefix}profile_${task}`]!,
      logCounts: inputs[`${prefix}counts_${task}`]!,
    }));
  return {
    model,
    predict: (inputs) =>
      Object.fromEntries(
        Object.entries(model({ x: inputs.x!, bias: pairs(inputs, 'bias_') })).flatMap(([task, found]) => [
          [`${task}_profile_logits`, found.logits],
          [`${task}_counts`, found.logCounts],
        ]),
      ),
    loss: (prediction, inputs) => {
      const found = byTask(tasks, (task) => ({
        logits: prediction[`${task}_profile_logits`]!,
        logCounts: prediction[`${task}_counts`]!,
      }));
      return originalBpnetLoss(found, pairs(inputs, ''), { countWeight: given.number('lam') });
    },
    weights: originalBpnetWeights(model),
    runningStatistics: 'keras',
  };
}

function byTask<T>(tasks: readonly string[], value: (task: string) => T): Record<string, T> {
  return Object.fromEntries(tasks.map((task) => [task, value(task)]));
}
