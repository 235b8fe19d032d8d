import { elementCount } from '@cohesin/core';
import { f16ToF32 } from '../float16.ts';
import { readWeights } from '../weights/weight-file.ts';
import type { InspectOptions } from './inspect.ts';
import { brief, type Notes } from './inspection.ts';

/** Weights: every tensor with its shape, dtype and range. */
export async function inspectWeights(path: string, notes: Notes, _: InspectOptions): Promise<void> {
  notes.what = 'weights';
  const { format, tensors } = await readWeights(path);
  const total = [...tensors.values()].reduce((sum, { shape }) => sum + elementCount(shape), 0);
  notes.what = `weights in ${format}: ${tensors.size} tensors, ${total.toLocaleString('en')} values`;
  const wrong: string[] = [];
  const rows = [...tensors].map(([name, { shape, dtype, data }]) => {
    let [low, high, bad] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0];
    for (const element of dtype === 'f16' ? f16ToF32(data as Uint16Array) : data) {
      const value = Number(element);
      if (!Number.isFinite(value)) bad++;
      if (value < low) low = value;
      if (value > high) high = value;
    }
    if (bad > 0) wrong.push(`${name} has ${bad} values that are NaN or infinite`);
    return [
      name,
      shape.join(' × ') || 'one value',
      dtype,
      low <= high ? `${brief(low)} to ${brief(high)}` : '',
    ];
  });
  notes.tables.push({ header: ['tensor', 'shape', 'dtype', 'values'], rows });
  notes.problems.push(...wrong);
}
