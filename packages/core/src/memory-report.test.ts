import { describe, expect, test } from 'vitest';
import { type BuildOptions, build } from './compile/compile.ts';
import { memoryReport, programBytes } from './memory-report.ts';
import * as nn from './nn/index.ts';
import { geluSigmoid } from './ops/elementwise.ts';
import { adam } from './optim/index.ts';
import type { Program } from './program.ts';
import { predictStep, trainStep } from './train-step.ts';

const model = nn.sequential({
  first: nn.conv1d({ inputs: 4, outputs: 8, size: 3 }),
  norm: nn.batchNorm({ channels: 8 }),
  gelu: geluSigmoid,
  second: nn.conv1d({ inputs: 8, outputs: 8, size: 3 }),
});
const SHAPES = { inputs: { x: [2, 65_536, 4], y: [2, 65_536, 8] }, leaves: 2 } as const;
const options = { model, loss: nn.mseLoss, optimizer: adam({ learningRate: 0.01 }) };
const training = (placement: Partial<BuildOptions> = {}): Program =>
  build(trainStep(options), { ...SHAPES, ...placement }).program;
const STORED = 65_536 * 8 * 4; // bytes of a stored tensor of one sequence

describe('the memory report', () => {
  test('counts what the backward pass reads: both convolutions, the activation, statistics', () => {
    const [statistics, loss] = [2 * 8 * 4, 4];
    const { device, sequence, leaf, all, again } = training().activations!;
    expect(device + leaf).toBe(3 * STORED + statistics + loss);
    expect([all, again]).toEqual([{ device, sequence, leaf }, 0]);
  });

  test('counts what is computed again', () => {
    const whole = training();
    const peak = Object.values(programBytes(whole)).reduce((a, b) => a + b, 0);
    const program = training({ memoryBudget: peak - 1 });
    const { device, leaf, all, again } = program.activations!;
    expect(program.bitsId).toBe(whole.bitsId);
    expect(all.device + all.leaf - device - leaf).toBe(STORED);
    expect(again).toBe(1);
    expect(memoryReport(program)).toMatch(/4\.00 MiB .*pass; 6\.00 MiB if 1 tensors were not computed again/);
  });

  test('divides the peak into what it is for', () => {
    for (const leaves of [1, 2]) {
      const program = training();
      const numbers = [
        ...memoryReport(program, leaves)
          .split('largest')[0]!
          .matchAll(/([\d.]+) MiB/g),
      ];
      const [peak = 0, ...classes] = numbers.map(([, text]) => Number(text));
      const total = Object.values(programBytes(program, leaves)).reduce((a, b) => a + b, 0);
      expect(Math.abs(peak - total / 2 ** 20)).toBeLessThan(0.006);
      expect(Math.abs(peak - classes.reduce((a, b) => a + b, 0))).toBeLessThan(0.05); // each is rounded
    }
  });

  test('has no activations without a backward pass', () => {
    const { program } = build(predictStep({ model }), { inputs: { x: [2, 64, 4] } });
    expect(program.activations).toBeUndefined();
    expect(memoryReport(program)).not.toMatch(/activations|moments|sums/);
  });
});
