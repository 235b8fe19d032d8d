import { describe, expect, test } from 'vitest';
import { glorotUniform, heNormal, sonnetNormal, torchUniform, truncatedNormal, uniform } from './init.ts';

const SHAPE = [5, 100, 200];
const mean = (x: Float32Array): number => x.reduce((a, b) => a + b, 0) / x.length;
const deviation = (x: Float32Array): number => Math.sqrt(mean(x.map((v) => v * v)));
const largest = (x: Float32Array): number => x.reduce((a, b) => Math.max(a, Math.abs(b)), 0);

describe('initial values', () => {
  test.each([
    ['heNormal', heNormal, Math.sqrt(2 / 500), (2 * Math.sqrt(2 / 500)) / 0.879_625_661_034_239_78],
    ['sonnetNormal', sonnetNormal, 0.879_625_661_034_239_78 / Math.sqrt(500), 2 / Math.sqrt(500)],
    ['glorotUniform', glorotUniform, Math.sqrt(2 / 1500), Math.sqrt(6 / 1500)],
    ['torchUniform', torchUniform, 1 / Math.sqrt(1500), 1 / Math.sqrt(500)],
    ['uniform', uniform(0.3), 0.3 / Math.sqrt(3), 0.3],
    ['truncatedNormal', truncatedNormal(0.5), 0.5 * 0.879_625_661_034_239_78, 1],
  ] as const)('%s has its standard deviation and its bound', (_, init, expected, bound) => {
    const values = init(SHAPE, 3);
    expect(Math.abs(mean(values))).toBeLessThan((5 * expected) / Math.sqrt(values.length));
    expect(Math.abs(deviation(values) / expected - 1)).toBeLessThan(0.01);
    expect(largest(values)).toBeLessThanOrEqual(Math.fround(bound));
    expect(largest(values)).toBeGreaterThan(0.99 * bound);
  });

  test('a truncated normal has a normal share within one standard deviation', () => {
    const inside = truncatedNormal(1)(SHAPE, 4).filter((v) => Math.abs(v) < 1).length / 100_000;
    expect(Math.abs(inside - 0.682_689 / 0.954_5)).toBeLessThan(0.008);
  });

  test('depend on the seed and nothing else', () => {
    expect(heNormal(SHAPE, 3)).toEqual(heNormal(SHAPE, 3));
    expect(heNormal(SHAPE, 3)).not.toEqual(heNormal(SHAPE, 4));
    const [a, b] = [uniform(1)(SHAPE, 3), uniform(1)(SHAPE, 4)];
    expect(Math.abs(mean(a.map((v, i) => v * b[i]!)))).toBeLessThan(0.006); // 5 / (3 √100,000)
  });
});
