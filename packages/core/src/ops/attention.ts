/**
 * Attention with relative positions, as in Enformer (Avsec et al. 2021) after Transformer-XL (Dai et al. 2019):
 * logits[i, j] = (scale · q_i + contentBias) · k_j + (scale · q_i + positionBias) · relativeKey[j − i + T − 1].
 */
import { defineOp } from '../op.ts';
import { hashName } from '../random.ts';
import { currentScope } from '../scope.ts';
import { shapeText, type Tensor } from '../tensor.ts';
import { add, multiply, subtract } from './arithmetic.ts';
import {
  queryKey,
  relativeQueryKey,
  sumByDistance,
  sumOverDistances,
  sumOverKeys,
  sumOverQueries,
} from './attention-products.ts';
import { exp } from './elementwise.ts';
import { permute } from './permute.ts';
import { masked } from './random.ts';
import { reshape } from './shape.ts';
import { logSumExp, softmax } from './softmax.ts';
import { weightedMean } from './weighted-mean.ts';

export interface RelativeAttentionInputs {
  /** `[batch, length, heads, channels]`, not yet scaled. */
  readonly query: Tensor;
  /** `[batch, length, heads, channels]`. */
  readonly key: Tensor;
  /** `[batch, length, heads, values]`. */
  readonly value: Tensor;
  /** Of distance r − (length − 1) in row r: `[2 · length − 1, heads, channels]`. */
  readonly relativeKey: Tensor;
  /** Added to queries that meet keys: `[heads, channels]`. */
  readonly contentBias: Tensor;
  /** Added to queries that meet distances: `[heads, channels]`. */
  readonly positionBias: Tensor;
}

export interface AttentionOptions {
  /** Share of the weights that is dropped while training. */
  readonly dropoutRate?: number;
}

/** The maps behind the output, `[batch, heads, query, key]`. */
export interface AttentionMaps {
  readonly logits: Tensor;
  /** Softmax of the logits over keys. */
  readonly weights: Tensor;
}

/**
 * Attention: → `[batch, length, heads, values]`. No map of the forward pass is kept for the backward one, which computes
 * the weights again from the logarithm of each row's sum; each pass holds at most two maps at a time.
 *
 * @throws when the shapes do not fit or the rate is not in [0, 1).
 */
export function relativeAttention(
  inputs: RelativeAttentionInputs,
  { dropoutRate = 0 }: AttentionOptions = {},
): Tensor {
  checkShapes(inputs);
  if (!(dropoutRate >= 0 && dropoutRate < 1))
    throw new Error(`relativeAttention: the dropout rate is ${dropoutRate}; it must be in [0, 1)`);
  const { training, path } = currentScope();
  const attrs = { rate: training ? dropoutRate : 0, id: hashName(`${path}/attention`) };
  const { value } = inputs;
  const operands = operandsOf(inputs);
  const all = logitsOf(operands);
  const rows = logSumExp(all); // [batch, query, head]
  const output = sumOverKeys(dropped(weightsOf(all, rows), attrs), value);
  return outputOp({ output, ...operands, value, rows }, attrs);
}

/** The maps of attention without dropout, for looking at them. */
export function relativeAttentionMaps(inputs: RelativeAttentionInputs): AttentionMaps {
  checkShapes(inputs);
  const logits = permute(logitsOf(operandsOf(inputs)), [0, 2, 1, 3]); // [batch, head, query, key]
  return { logits, weights: softmax(logits) };
}

function checkShapes({
  query,
  key,
  value,
  relativeKey,
  contentBias,
  positionBias,
}: RelativeAttentionInputs): void {
  const [batch, length, heads, channels] = query.shape;
  const wanted = [
    ['key', key, [batch, length, heads, channels]],
    ['value', value, [batch, length, heads, value.shape[3]]],
    ['relativeKey', relativeKey, [2 * length! - 1, heads, channels]],
    ['contentBias', contentBias, [heads, channels]],
    ['positionBias', positionBias, [heads, channels]],
  ] as const;
  for (const [name, { shape }, expected] of wanted) {
    if (query.shape.length === 4 && shape.join() === expected.join()) continue;
    throw new Error(
      `relativeAttention: ${name} is ${shapeText(shape)} beside a query of ${shapeText(query.shape)} [batch, length, heads, channels]; it must be [${expected.join(', ')}]`,
    );
  }
}

function queriesOf({ query, contentBias, positionBias }: RelativeAttentionInputs): {
  readonly contentQuery: Tensor;
  readonly positionQuery: Tensor;
} {
  const scaled = multiply(query, query.shape[3]! ** -0.5);
  return { contentQuery: add(scaled, contentBias), positionQuery: add(scaled, positionBias) };
}

interface Operands {
  /** `[batch, query, head, channel]`. */
  readonly contentQuery: Tensor;
  readonly positionQuery: Tensor;
  /** `[batch, head, channel, key]`. */
  readonly keyColumns: Tensor;
  /** `[head, channel, distance]`. */
  readonly distanceColumns: Tensor;
}

function operandsOf(inputs: RelativeAttentionInputs): Operands {
  return {
    ...queriesOf(inputs),
    keyColumns: permute(inputs.key, [0, 2, 3, 1]),
    distanceColumns: permute(inputs.relativeKey, [1, 2, 0]),
  };
}

/** `[batch, query, head, key]`. */
function logitsOf({ contentQuery, positionQuery, keyColumns, distanceColumns }: Operands): Tensor {
  return add(queryKey(contentQuery, keyColumns), relativeQueryKey(positionQuery, distanceColumns));
}

/** Softmax from the logarithm of each row's sum, `[batch, query, head]`. */
function weightsOf(logits: Tensor, rows: Tensor): Tensor {
  return exp(subtract(logits, lastAxis(rows)));
}

/** `[batch, query, head]` → `[batch, query, head, 1]`. */
function lastAxis(rows: Tensor): Tensor {
  return reshape(rows, [-1, ...rows.shape.slice(1), 1]);
}

interface Dropping {
  readonly rate: number;
  readonly id: number;
}

function dropped(x: Tensor, attrs: Dropping): Tensor {
  return attrs.rate === 0 ? x : masked(x, attrs);
}

/** Its first input, with a gradient that goes around how it was computed: weights are computed again, not kept. */
const outputOp = defineOp<Dropping>()({
  name: 'attentionOutput',
  inputs: ['output', 'contentQuery', 'positionQuery', 'keyColumns', 'distanceColumns', 'value', 'rows'],
  shapeOnly: ['contentQuery', 'positionQuery', 'keyColumns', 'distanceColumns', 'value', 'rows'],
  axes: 'batch query head value, batch query head _, batch query head _, batch head _ _, head _ _, batch _ head value, batch query head -> batch query head value',
  infer: ({ output }) => output,
  kernel: { kind: 'view', alias: true, index: (i) => i },
  gradient: (dy, { value, rows, output: _, ...operands }, attrs) => {
    const { contentQuery, positionQuery, keyColumns, distanceColumns } = operands;
    const weights = weightsOf(logitsOf(operands), rows);
    const slopes = dropped(queryKey(dy, permute(value, [0, 2, 3, 1])), attrs); // of the weights
    // [batch, query, head]; not Σ dy · y, which is the same but for rounding: a row of gradients then adds up to 0
    const means = weightedMean(slopes, weights);
    const logits = multiply(weights, subtract(slopes, lastAxis(means)));
    return {
      contentQuery: () => sumOverKeys(logits, permute(keyColumns, [0, 3, 1, 2])),
      positionQuery: () => sumOverDistances(logits, permute(distanceColumns, [2, 0, 1])),
      keyColumns: () => permute(sumOverQueries(logits, contentQuery), [0, 2, 3, 1]),
      distanceColumns: () => permute(sumByDistance(logits, positionQuery), [1, 2, 0]),
      value: () => sumOverQueries(dropped(weights, attrs), dy),
    };
  },
});
