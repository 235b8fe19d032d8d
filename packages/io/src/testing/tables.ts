import type { Group } from 'h5wasm/node';

export type Column = Int32Array | Float64Array | BigInt64Array | readonly string[];

const CHUNK = 2 ** 14;
const TYPES: Readonly<Record<string, string>> = { Int32Array: '<i', Float64Array: '<d', BigInt64Array: '<q' };

/** Writes tables as a cooler file has them, a group each with a data set for each column; long columns in compressed chunks. */
export function writeTables(
  root: Group,
  tables: Readonly<Record<string, Readonly<Record<string, Column>>>>,
): void {
  for (const [name, columns] of Object.entries(tables)) {
    const group = root.create_group(name);
    for (const [column, values] of Object.entries(columns)) {
      const dtype = Array.isArray(values) ? 'S16' : TYPES[values.constructor.name]!;
      const common = { name: column, data: values, shape: [values.length], dtype };
      if (values.length <= CHUNK) group.create_dataset(common);
      else group.create_dataset({ ...common, chunks: [CHUNK], compression: 'gzip', compression_opts: 4 });
    }
  }
}
