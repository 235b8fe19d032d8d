/**
 * Counter-based randomness: a random number is a hash of what it is for (seed, step, sequence, op, element), never the
 * next number of a stream, so that no placement can change it.
 */
import { elementCount } from '../host-tensor.ts';
import { literal } from '../literal.ts';
import { defineOp, type MapSite, type PartEdges, type Rows } from '../op.ts';
import { hashName } from '../random.ts';
import { currentScope } from '../scope.ts';
import type { Tensor } from '../tensor.ts';
import { wgsl } from '../wgsl.ts';
import { rowOfEdge } from './rows.ts';

/** MurmurHash3_x86_32 (Appleby 2011, public domain) of u32 words: every output bit depends on every input bit. */
export function hashWords(...words: readonly number[]): number {
  let h = 0;
  for (const word of words) {
    let k = Math.imul(word, 0xcc9e2d51);
    k = Math.imul((k << 15) | (k >>> 17), 0x1b873593);
    h ^= k;
    h = (Math.imul((h << 13) | (h >>> 19), 5) + 0xe6546b64) | 0;
  }
  h ^= words.length * 4; // bytes hashed
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** WGSL `randomWord`: `hashWords` of five words. Plain u32 arithmetic, which wraps. */
export const randomWordWgsl: string = wgsl`
  fn mixWord(h: u32, word: u32) -> u32 {
    var k = word * 0xcc9e2d51u;
    k = ((k << 15u) | (k >> 17u)) * 0x1b873593u;
    let mixed = h ^ k;
    return ((mixed << 13u) | (mixed >> 19u)) * 5u + 0xe6546b64u;
  }
  fn randomWord(seed: u32, step: u32, sequence: u32, op: u32, element: u32) -> u32 {
    var h = mixWord(mixWord(mixWord(mixWord(mixWord(0u, seed), step), sequence), op), element) ^ 20u;
    h = (h ^ (h >> 16u)) * 0x85ebca6bu;
    h = (h ^ (h >> 13u)) * 0xc2b2ae35u;
    return h ^ (h >> 16u);
  }`;

interface Attrs {
  readonly rate: number;
  /** Which dropout this is, whatever the graph looks like: a hash of its layer path. */
  readonly id: number;
  /** Whether x has no batch axis: all sequences of a step then see the same elements dropped. */
  readonly shared?: boolean;
  /** Where a part of a sequence lies in it, so that the same position draws the same word however sequences are cut. */
  readonly own?: Rows;
  /** If x is the edges of all parts. */
  readonly edges?: PartEdges;
}

/** WGSL of the sequence and of the position in the whole sequence behind element i. */
function place(
  { i, y }: MapSite,
  { own, edges, shared }: Attrs,
): readonly [sequence: string, position: string] {
  if (shared === true) return ['0u', i];
  const perSequence = elementCount(y.shape.slice(1));
  const position = `${i} % ${perSequence}u`;
  if (own === undefined) return [`frame.sequence + ${i} / ${perSequence}u`, position];
  const { axis, start, size, length } = own;
  const [rows, inner] = [y.shape[axis]!, elementCount(y.shape.slice(axis + 1))];
  const at = `(${i} / ${inner}u % ${rows}u)`;
  const [part, inPart] =
    edges === undefined
      ? ['i32(frame.leaf)', `i32(${at})`]
      : [`i32(${edges.first}u + ${i} / ${perSequence}u)`, `i32(${rowOfEdge(at, size, edges)})`];
  const row = `u32(${start} + ${part} * ${size} + ${inPart})`;
  return [
    'frame.sequence + 0u',
    `(${position}) / ${inner * rows}u * ${inner * length}u + ${row} * ${inner}u + ${i} % ${inner}u`,
  ];
}

/** An element is dropped when its random word is below this: `rate` as a fraction of 2³². */
export function dropoutThreshold(rate: number): number {
  return Math.min(2 ** 32 - 1, Math.round(rate * 2 ** 32));
}

const op = defineOp<Attrs>()({
  name: 'dropout',
  inputs: ['x'],
  infer: ({ x }) => ({ shape: x.shape, dtype: 'f32' }),
  atRows: (attrs, own) => ({ ...attrs, own }),
  atEdges: (attrs, edges) => ({ ...attrs, edges }),
  kernel: {
    kind: 'map',
    declarations: () => randomWordWgsl,
    expression: ({ x }, attrs, site) => {
      const [sequence, position] = place(site, attrs);
      const word = `randomWord(frame.seed, frame.step, ${sequence}, ${site.key(attrs.id)}, ${position})`;
      return `select(0.0, ${x} * ${literal(1 / (1 - attrs.rate))}, ${word} >= ${dropoutThreshold(attrs.rate)}u)`;
    },
  },
  gradient: (dy, _, attrs) => ({ x: () => masked(dy, attrs) }), // the same words, so the same mask
  reference: ({ x }, { rate, id, shared }) => {
    const perSequence = elementCount(shared === true ? x.shape : x.shape.slice(1));
    return x.data.map((value, i) => {
      const word = hashWords(0, 0, Math.floor(i / perSequence), id, i % perSequence);
      return word >= dropoutThreshold(rate) ? value / (1 - rate) : 0;
    });
  },
  samples: [{ inputs: { x: [3, 5, 7] }, attrs: { rate: 0.4, id: 7 } }],
});

/** x with the elements dropped that `attrs` says, whatever the mode. */
export function masked(x: Tensor, attrs: Attrs): Tensor {
  return op({ x }, attrs);
}

export interface DropoutOptions {
  readonly rate: number;
  readonly name?: string;
  readonly shared?: boolean;
}

/**
 * x with each element set to 0 with probability `rate`, the others divided by 1 − rate: the shape of x. Only while
 * training; otherwise x itself. The leading axis must be the sequences of the batch, unless x is `shared` by all of them
 * and has no such axis. A layer that drops twice gives each a `name`, or both would drop the same elements.
 *
 * @throws when the rate is not in [0, 1).
 */
export function dropout(x: Tensor, { rate, name = '', shared = false }: DropoutOptions): Tensor {
  if (!(rate >= 0 && rate < 1)) throw new Error(`dropout: the rate is ${rate}; it must be in [0, 1)`);
  const { training, path } = currentScope();
  if (!training || rate === 0) return x;
  return masked(x, { rate, id: hashName(`${path}/${name}`), ...(shared ? { shared } : {}) });
}
