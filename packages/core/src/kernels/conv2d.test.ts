import { afterAll, beforeAll, expect, it } from 'vitest';
import { SOFTWARE } from '../kernel.ts';
import { checkConvolution, type Visit } from './check-kernel.ts';
import { type Conv2dGeometry, conv2dWeightGradientChunks } from './conv2d.ts';
import { implicitFamily, type ProductFamily, productFamily } from './family.ts';
import { openRawDevice, type RawDevice } from './run-kernel.ts';
import { workgroupTileKernel } from './workgroup-tile.ts';

let raw: RawDevice;
let device: GPUDevice;

beforeAll(async () => {
  raw = await openRawDevice();
  device = raw.device;
});
afterAll(() => raw.close());

const tiles = implicitFamily((product) => workgroupTileKernel(product, { rows: 1, columns: 1 }));

const DENSE = { batch: 1, height: 13, width: 19, outHeight: 13, outWidth: 19 } as const;
const SHAPES: readonly Conv2dGeometry[] = [
  // Several tiles along a row of the map, channels in fours; taps beyond all edges.
  {
    ...DENSE,
    batch: 2,
    inputs: 8,
    outputs: 12,
    sizeHeight: 3,
    sizeWidth: 3,
    dilation: 2,
    padTop: 2,
    padLeft: 2,
  },
  // Rows and columns that are skipped, uneven window and padding, odd numbers of channels.
  {
    ...DENSE,
    outHeight: 8,
    outWidth: 17,
    inputs: 5,
    outputs: 3,
    sizeHeight: 4,
    sizeWidth: 2,
    dilation: 1,
    padTop: -2,
    padLeft: 1,
  },
  // Dilation beyond the map: only the middle tap is ever inside.
  { ...DENSE, inputs: 3, outputs: 4, sizeHeight: 3, sizeWidth: 3, dilation: 32, padTop: 32, padLeft: 32 },
];

const FAMILIES: readonly (readonly [string, ProductFamily, readonly Conv2dGeometry[]])[] = [
  ['registers', productFamily(SOFTWARE), SHAPES],
  ['workgroup memory', tiles, SHAPES.slice(0, 2)], // seconds of compilation each
];

for (const [name, family, shapes] of FAMILIES) {
  it.each(shapes)(`a convolution of maps in ${name} agrees with plain loops for %j`, async (g) => {
    const kernels = [
      family.conv2d(g),
      family.conv2dInputGradient(g),
      family.conv2dWeightGradient(g),
    ] as const;
    const sizes = {
      x: g.batch * g.height * g.width * g.inputs,
      weight: g.sizeHeight * g.sizeWidth * g.inputs * g.outputs,
      dy: g.batch * g.outHeight * g.outWidth * g.outputs,
    };
    const each = (visit: Visit): void => eachProduct(g, visit);
    await checkConvolution(device, { kernels, sizes, each, chunks: conv2dWeightGradientChunks(g) });
  });
}

it('a long weight gradient is many partial sums of whole rows', () => {
  const akita = { ...DENSE, height: 512, width: 512, outHeight: 512, outWidth: 512, dilation: 1 };
  const g = { ...akita, inputs: 48, outputs: 24, sizeHeight: 3, sizeWidth: 3, padTop: 1, padLeft: 1 };
  expect(conv2dWeightGradientChunks(g)).toBe(32); // 512² terms, at most 8,192 each
  expect(conv2dWeightGradientChunks({ ...g, outHeight: 3, inputs: 1, outputs: 1 })).toBe(3);
});

/** Calls `visit` with the flat indices of x, weight and dy of every product of the convolution. */
function eachProduct(g: Conv2dGeometry, visit: Visit): void {
  for (let b = 0; b < g.batch; b++)
    for (let r = 0; r < g.outHeight; r++)
      for (let c = 0; c < g.outWidth; c++)
        for (let s = 0; s < g.sizeHeight; s++)
          for (let t = 0; t < g.sizeWidth; t++) {
            const [row, column] = [r + s * g.dilation - g.padTop, c + t * g.dilation - g.padLeft];
            if (row < 0 || row >= g.height || column < 0 || column >= g.width) continue;
            for (let i = 0; i < g.inputs; i++)
              for (let o = 0; o < g.outputs; o++)
                visit(
                  ((b * g.height + row) * g.width + column) * g.inputs + i,
                  ((s * g.sizeWidth + t) * g.inputs + i) * g.outputs + o,
                  ((b * g.outHeight + r) * g.outWidth + c) * g.outputs + o,
                );
          }
}
