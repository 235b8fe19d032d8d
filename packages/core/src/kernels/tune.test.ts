import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { build, type Traceable } from '../compile/compile.ts';
import { gradients } from '../grad.ts';
import { type KernelTarget, SOFTWARE } from '../kernel.ts';
import { conv1d } from '../ops/conv1d.ts';
import { parameter, zeros } from '../parameter.ts';
import type { Conv1dGeometry } from './conv1d.ts';
import { type Product, productFamily, productsOf, tiledFamily } from './family.ts';
import {
  kernelTableHash,
  productClass,
  readKernelTable,
  sortedTable,
  writeKernelTable,
} from './kernel-table.ts';
import { productSizes, shortened } from './product-sizes.ts';
import { tileName } from './tiled-kernel.ts';
import {
  type Candidate,
  clearWinner,
  openTuner,
  type TileTimes,
  type Tuner,
  tableOf,
  timeTiles,
  tune,
  worthTuning,
} from './tune.ts';
import { openTuneCache, type TuneCache } from './tune-cache.ts';

const GEOMETRY: Conv1dGeometry = {
  ...{ batch: 1, length: 101, outLength: 101, inputs: 3, outputs: 5, size: 5 },
  ...{ stride: 1, dilation: 1, padLeft: 2 },
};
const PRODUCT: Product = { kind: 'conv1d', geometry: GEOMETRY };
const CLASS = 'software conv1d 3>5 m128 b1 5 taps';

let tuner: Tuner;
let dir: string;
beforeAll(async () => {
  tuner = await openTuner();
  dir = await mkdtemp(join(tmpdir(), 'cohesin-tune-'));
});
afterAll(async () => {
  tuner.close();
  await rm(dir, { recursive: true });
});

describe('a kernel with a wrong result never wins', () => {
  const own = tiledFamily(SOFTWARE).conv1d;
  const [tile] = own.tiles(GEOMETRY);
  const right = own.kernel(GEOMETRY, tile!);
  const broken: readonly (readonly [string, string])[] = [
    ['that is 0.1 % too large', right.body.replaceAll('fma(left0', 'fma(1.001 * left0')],
    ['that does nothing', `if (wg == 9u) { ${right.body} }`],
    ['that leaves some of the result out', right.body.replace('0xffffffffu)', '0xffffffffu && k != 0u)')],
    ['that adds NaN', right.body.replaceAll('= 0.0;', '= bitcast<f32>(0x7fc00000u | lane);')],
  ];

  it.each(broken)('%s', async (_, body) => {
    expect(body).not.toBe(right.body);
    const candidate = (name: string, text: string): Candidate => {
      const kernel = { ...right, body: text };
      return { tile: name, checked: kernel, timed: kernel, workgroups: kernel.workgroups, weight: 1 };
    };
    const sizes = productSizes(PRODUCT);
    const times = await timeTiles(tuner, {
      ...{ checked: sizes, timed: sizes, reference: productFamily({ kind: 'gpu' }).conv1d(GEOMETRY) },
      candidates: [candidate('right', right.body), candidate('wrong', body)],
    });
    expect(times.map((one) => one.right)).toEqual([true, false]);
    expect(times[1]!.microseconds).toEqual([]);
    expect(clearWinner(times)).toBeUndefined();
  });
});

describe('a tile wins', () => {
  const nine = (time: number, last = time): number[] => [...Array<number>(8).fill(time), last];
  const tiles = (...others: readonly Partial<TileTimes>[]): TileTimes[] =>
    [{ microseconds: nine(100) }, ...others].map((one, i) => ({
      ...{ tile: `tile ${i}`, right: true, microseconds: [] },
      ...one,
    }));

  it('by 5 % in the median, and in all rounds but one', () => {
    expect(clearWinner(tiles({ microseconds: nine(95) }))).toBe('tile 1');
    expect(clearWinner(tiles({ microseconds: nine(95, 200) }))).toBe('tile 1');
    expect(clearWinner(tiles({ microseconds: nine(96) }))).toBeUndefined();
    expect(clearWinner(tiles({ microseconds: [96, ...nine(90).slice(2), 96] }))).toBeUndefined();
    expect(clearWinner(tiles({ microseconds: nine(94) }, { microseconds: nine(80) }))).toBe('tile 2');
  });

  it('only if it is right and was timed in every round', () => {
    expect(clearWinner(tiles({ microseconds: nine(10), right: false }))).toBeUndefined();
    expect(clearWinner(tiles({ microseconds: [10, 10, 10] }))).toBeUndefined();
    const [first, second] = tiles({ microseconds: nine(300) });
    expect(clearWinner([{ ...first!, right: false, microseconds: [] }, second!])).toBe('tile 1');
  });
});

describe('a kernel table', () => {
  const target = (table: Record<string, string>): KernelTarget => ({ kind: 'software', table });
  const other = tileName(tiledFamily(SOFTWARE).conv1d.tiles(GEOMETRY)[7]!);
  const weight = parameter([5, 3, 5], { name: 'weight', init: zeros });
  const step: Traceable = ({ x }) => ({
    slope: gradients(conv1d(x!, weight), conv1d(x!, weight), [weight])[0]!,
  });
  const bits = (kernelTable?: Record<string, string>): string =>
    build(step, {
      inputs: { x: [1, 101, 3] },
      ...(kernelTable === undefined ? {} : { kernelTable }),
    }).program.bitsId;

  it('chooses the tile of its class, and leaves others to the estimate', () => {
    const { conv1d: estimated } = productFamily(target({}));
    const { conv1d: chosen } = productFamily(target({ [CLASS]: other }));
    expect(chosen(GEOMETRY).body).not.toBe(estimated(GEOMETRY).body);
    expect(chosen({ ...GEOMETRY, dilation: 7, outLength: 90 }).body).toContain('min(');
    const wide = { ...GEOMETRY, outputs: 6 };
    expect(chosen(wide).body).toBe(estimated(wide).body);
  });

  it('that names a tile its kernels lack is refused', () => {
    expect(() => productFamily(target({ [CLASS]: '99x1 rows' })).conv1d(GEOMETRY)).toThrow(
      /gives 'software conv1d 3>5 m128 b1 5 taps' the tile '99x1 rows'.*none of that name/,
    );
  });

  it('is part of the plan, whatever the order of its classes', () => {
    expect(bits({ [CLASS]: other })).not.toBe(bits());
    expect(bits({ 'software conv1d 1>1 m1 b1 1 taps': '1x1 rows' })).not.toBe(bits({}));
    const entries = [[CLASS, other] as const, ['a', 'b'] as const];
    expect(bits(sortedTable(entries))).toBe(bits(sortedTable(entries.toReversed())));
    expect(kernelTableHash(Object.fromEntries(entries))).toBe(
      kernelTableHash(Object.fromEntries(entries.toReversed())),
    );
  });

  it('is read as it was written, and refused when it is something else', async () => {
    const path = join(dir, 'table.json');
    await writeKernelTable(path, { [CLASS]: other }, { device: 'this one' });
    expect(await readKernelTable(path)).toEqual({ [CLASS]: other });
    const refused: readonly (readonly [string, RegExp])[] = [
      ['{', /a kernel table is JSON/],
      ['[]', /its format is 'undefined', not 'cohesin kernel table 1'/],
      ['{"format":"cohesin kernel table 1","tiles":{"a":7}}', /the tile of 'a' is 7/],
    ];
    for (const [text, message] of refused) {
      await writeFile(path, text);
      await expect(readKernelTable(path)).rejects.toThrow(message);
    }
    await expect(readKernelTable(join(dir, 'none'))).rejects.toThrow(/none: ENOENT/);
  });

  it('names classes by family, kind and sizes; long axes count alike', () => {
    const name = (change: Partial<Conv1dGeometry>): string =>
      productClass(SOFTWARE, { kind: 'conv1d', geometry: { ...GEOMETRY, ...change } });
    expect(name({})).toBe(CLASS);
    expect(name({ outLength: 128, dilation: 4, padLeft: 8 })).toBe(CLASS);
    expect(name({ outLength: 129 })).not.toBe(CLASS);
    expect(name({ outLength: 196_608 })).toBe(name({ outLength: 1024 }));
    expect(name({ stride: 2 })).toBe(`${CLASS} stride 2`);
    const matrices = { m: 16, n: 16, k: 16, subgroupSize: 32 };
    const matmul = {
      kind: 'matmul',
      geometry: { batch: 2, m: 70_000, k: 8, n: 6, transposeB: true },
    } as const;
    expect(productClass({ kind: 'tensor-core', matrices }, matmul)).toBe(
      'tensor-core 16x16x16 matmul 8>6 m65536+ b2 bT',
    );
  });
});

describe('tuning', () => {
  it('finds the products of a program, one of each class, those of the most work first', () => {
    const weights = [64, 96].map((outputs) =>
      parameter([5, 64, outputs], { name: `w${outputs}`, init: zeros }),
    );
    const products = productsOf(() => {
      build(({ x }) => ({ a: conv1d(x!, weights[0]!), b: conv1d(x!, weights[1]!) }), {
        inputs: { x: [2, 8192, 64] },
        leaves: 2,
      });
    });
    expect(products.map(({ kind }) => kind)).toEqual(['conv1d', 'conv1d']);
    expect(worthTuning(SOFTWARE, [...products, ...products, PRODUCT])).toEqual([products[1], products[0]]);
  });

  it('shortens long products, and keeps their class', () => {
    const kinds = ['conv1d', 'conv1dInputGradient', 'conv1dWeightGradient'] as const;
    const geometry = { ...GEOMETRY, length: 200_000, outLength: 100_000, stride: 2, inputs: 64, outputs: 64 };
    const products: Product[] = [
      ...kinds.map((kind): Product => ({ kind, geometry })),
      { kind: 'matmul', geometry: { batch: 8, m: 9_000, k: 128, n: 128, batchB: 1 } },
      { kind: 'matmul', geometry: { batch: 8, m: 9_000, k: 128, n: 128, batchB: 8 } },
      { kind: 'matmulPartials', geometry: { batch: 1, m: 128, k: 90_000, n: 128 } },
    ];
    for (const product of products) {
      const part = shortened(product, 2 ** 26);
      const { multiplyAdds, inputs } = productSizes(part);
      expect(multiplyAdds).toBeLessThanOrEqual(2 ** 26);
      expect(multiplyAdds).toBeGreaterThan(2 ** 25);
      expect(Object.values(inputs).every((elements) => elements > 0)).toBe(true);
      expect(productClass(SOFTWARE, part).replace(' b1', ' b8')).toBe(
        productClass(SOFTWARE, product).replace(' b1', ' b8'),
      );
      expect(shortened(part, 2 ** 26)).toBe(part);
    }
  });

  it('measures ten tiles, all right, and keeps the times in a file', async () => {
    const path = join(dir, 'cache', 'tune.json');
    const [first] = await tune(tuner, { products: [PRODUCT], cache: await openTuneCache(path) });
    expect(first).toMatchObject({ productClass: CLASS, cached: false });
    expect(first!.tiles).toHaveLength(10);
    expect(first!.tiles.every(({ right }) => right)).toBe(true);
    const [again] = await tune(tuner, { products: [PRODUCT], cache: await openTuneCache(path) });
    expect(again).toEqual({ ...first, cached: true });
    expect(tableOf([{ ...first!, winner: '1x1 rows' }])).toEqual({ [CLASS]: '1x1 rows' });
  });

  it('asks its cache by adapter, driver, kernel sources and shape', async () => {
    const asked: string[] = [];
    const cache: TuneCache = {
      get: (key) => {
        asked.push(key);
        return [];
      },
      set: () => Promise.reject(new Error('all is known')),
    };
    const longer: Product = { kind: 'conv1d', geometry: { ...GEOMETRY, length: 102, outLength: 102 } };
    for (const info of [tuner.info, { ...tuner.info, description: 'another driver' }])
      for (const target of [tuner.target, { kind: 'gpu' } as const])
        await tune({ ...tuner, info, target }, { products: [PRODUCT, longer, PRODUCT], cache });
    expect(asked).toHaveLength(12);
    expect(new Set(asked).size).toBe(8);
  });

  it('refuses a damaged cache, and says what to do', async () => {
    const path = join(dir, 'damaged.json');
    await writeFile(path, '{');
    await expect(openTuneCache(path)).rejects.toThrow(/delete this file/);
  });
});
