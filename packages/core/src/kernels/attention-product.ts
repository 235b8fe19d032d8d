/** The products of attention (see `attention.ts`) as implicit products. Those by distance compute all of them, used or not. */
import type { AttentionSizes } from './attention.ts';
import { chunked, type ImplicitProduct, type Operand, wrapped } from './implicit-product.ts';

/** a [batch, query, head, channel] · b [batch, head, channel, key] → y [batch, query, head, key]. */
export function queryKeyProduct(sizes: AttentionSizes): ImplicitProduct {
  const { batch, heads, queries, keys, channels } = sizes;
  return {
    ...{ groups: batch * heads, rows: queries, columns: keys, ...chunked(channels, 1, '0u') },
    setup: headOfGroup(heads),
    left: rowsAlong('left', 'step', channels, (query) => withHead(query, queries, heads, channels)),
    right: rowsAlong('right', 'outer', keys, (channel) => `(group * ${channels}u + ${channel}) * ${keys}u`),
    place: (row, column) => `${withHead(row, queries, heads, keys)} + ${column}`,
  };
}

/** w [batch, query, head, key] · x [batch, key, head, channel] → y [batch, query, head, channel]. */
export function sumOverKeysProduct({
  batch,
  heads,
  queries,
  keys,
  channels,
}: AttentionSizes): ImplicitProduct {
  return {
    ...{ groups: batch * heads, rows: queries, columns: channels, ...chunked(keys, 1, '0u') },
    setup: headOfGroup(heads),
    left: rowsAlong('left', 'step', keys, (query) => withHead(query, queries, heads, keys)),
    right: rowsAlong('right', 'outer', channels, (key) => withHead(key, keys, heads, channels)),
    place: (row, column) => `${withHead(row, queries, heads, channels)} + ${column}`,
  };
}

/** w [batch, query, head, key] and x [batch, query, head, channel], summed over queries → y [batch, key, head, channel]. */
export function sumOverQueriesProduct(sizes: AttentionSizes): ImplicitProduct {
  const { batch, heads, queries, keys, channels } = sizes;
  return {
    ...{ groups: batch * heads, rows: keys, columns: channels, ...chunked(queries, 1, '0u') },
    setup: headOfGroup(heads),
    left: rowsAlong('left', 'outer', keys, (query) => withHead(query, queries, heads, keys)),
    right: rowsAlong('right', 'outer', channels, (query) => withHead(query, queries, heads, channels)),
    place: (row, column) => `${withHead(row, keys, heads, channels)} + ${column}`,
  };
}

/** a [batch, query, head, channel] · b [head, channel, distance] → y [batch, query, head, key], shifted. */
export function relativeQueryKeyProduct(sizes: AttentionSizes): ImplicitProduct {
  const { batch, heads, queries, keys, channels } = sizes;
  const distances = 2 * keys - 1;
  const key = (query: string, distance: string): string => `(${distance} + ${query} + shift)`;
  return {
    ...{ groups: batch * heads, rows: queries, columns: distances, ...chunked(channels, 1, '0u') },
    setup: [...headOfGroup(heads), shiftOf(sizes)],
    left: rowsAlong('left', 'step', channels, (query) => withHead(query, queries, heads, channels)),
    right: rowsAlong(
      'right',
      'outer',
      distances,
      (channel) => `(head * ${channels}u + ${channel}) * ${distances}u`,
    ),
    place: (row, column) => `${withHead(row, queries, heads, keys)} + ${key(row, column)}`,
    isInside: (row, column) => `${key(row, column)} < ${keys}u`,
  };
}

/** w [batch, query, head, key] · x [distance, head, channel], by distance → y [batch, query, head, channel]. */
export function sumOverDistancesProduct(sizes: AttentionSizes): ImplicitProduct {
  const { batch, heads, queries, keys, channels } = sizes;
  return {
    ...{ groups: batch * heads, rows: queries, columns: channels, ...chunked(2 * keys - 1, 1, '0u') },
    setup: [...headOfGroup(heads), shiftOf(sizes)],
    left: {
      ...{ name: 'left', along: 'step', vec4: false },
      outer: (query, id) => [
        `let start${id} = ${withHead(query, queries, heads, keys)};`,
        `let first${id} = ${query} + shift;`,
      ],
      step: (distance, id) => [`let distance${id} = ${distance};`],
      at: (query, distance) => `start${query} + first${query} + distance${distance}`,
      inside: (query, distance) => `first${query} + distance${distance} < ${keys}u`,
    },
    right: rowsAlong(
      'right',
      'outer',
      channels,
      (distance) => `(${distance} * ${heads}u + head) * ${channels}u`,
    ),
    place: (row, column) => `${withHead(row, queries, heads, channels)} + ${column}`,
  };
}

/** w [batch, query, head, key] and x [batch, query, head, channel], by distance → y [distance, head, channel]. */
export function sumByDistanceProduct(sizes: AttentionSizes): ImplicitProduct {
  const { batch, heads, queries, keys, channels } = sizes;
  const ofHead = (row: string, size: number): string => `(${row} * ${heads}u + group) * ${size}u`;
  return {
    ...{ groups: heads, rows: 2 * keys - 1, columns: channels, ...chunked(batch * queries, 1, '0u') },
    setup: [shiftOf(sizes)],
    left: {
      ...{ name: 'left', along: 'outer', vec4: false },
      outer: (distance, id) => [`let distance${id} = ${distance};`],
      step: (query, id) => [
        `let start${id} = ${ofHead(query, keys)};`,
        `let first${id} = ${query} % ${queries}u + shift;`,
      ],
      at: (distance, query) => `start${query} + first${query} + distance${distance}`,
      inside: (distance, query) => `first${query} + distance${distance} < ${keys}u`,
    },
    right: rowsAlong('right', 'outer', channels, (query) => ofHead(query, channels)),
    place: (row, column) => `${ofHead(row, channels)} + ${column}`,
  };
}

function headOfGroup(heads: number): string[] {
  return [`let batch = group / ${heads}u;`, `let head = group % ${heads}u;`];
}

/** Declares what added to a query at hand and a distance gives the key, if there is one. */
function shiftOf({ keys, queryStart }: AttentionSizes): string {
  return `let shift = u32(${queryStart}) + ${wrapped(1 - keys)};`;
}

/** Where a row of [batch, position, head, channel] begins. */
function withHead(position: string, positions: number, heads: number, channels: number): string {
  return `((batch * ${positions}u + ${position}) * ${heads}u + head) * ${channels}u`;
}

/** An operand in rows of `size` neighbours along a coordinate; `start` is where the row of the other one begins. */
function rowsAlong(
  name: string,
  along: Operand['along'],
  size: number,
  start: (index: string) => string,
): Operand {
  const [outer, step] =
    along === 'outer' ? [(index: string) => index, start] : [start, (index: string) => index];
  return {
    ...{ name, along, vec4: size % 4 === 0 },
    outer: (index, id) => [`let outer${id} = ${outer(index)};`],
    step: (index, id) => [`let step${id} = ${step(index)};`],
    at: (outerId, stepId) => `outer${outerId} + step${stepId}`,
  };
}
