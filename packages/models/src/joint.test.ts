import { build, nn, type Parameter, predictStep, type Tensor } from '@cohesin/core';
import { expect, test } from 'vitest';
import { jointModels } from './joint.ts';

const elements = ({ shape }: Parameter): number => shape.reduce((a, b) => a * b, 1);
const trainable = (model: nn.AnyLayer): number =>
  [...nn.parameters(model).values()].reduce((sum, p) => sum + (p.trainable ? elements(p) : 0), 0);

test('Basenji2 and Enformer with both heads have the parameters of their papers', () => {
  const basenji2 = jointModels('basenji2');
  expect([...basenji2.byHead.keys()]).toEqual(['human', 'mouse']);
  expect(trainable(basenji2.model)).toBe(30_088_228 + 1_643 * 1_537); // the human model, and the mouse head
  const enformer = jointModels('enformer');
  expect(trainable(enformer.model)).toBe(251_221_292);
  expect(enformer.train).toMatchObject({ alternation: 'turns', globalClipNorm: 0.2, warmupSteps: 5000 });
  expect(enformer.byHead.get('mouse')!.config).toMatchObject({ outputShape: [896, 1_643], cropBp: 40_960 });
});

test('a small Enformer from parameters gives the bins and tracks of the genome that is named', () => {
  const model = {
    name: 'enformer',
    seq_length: 256,
    channels: 16,
    filters: [8, 16],
    transformer_blocks: 1,
    heads: 2,
    key_size: 4,
    position_features: 12,
    target_bins: 32,
    tracks: { human: 5, mouse: 3 },
  };
  const { model: all, byHead } = jointModels({ model }, ['mouse']);
  expect([...nn.parameters(all).keys()].filter((name) => name.startsWith('heads.'))).toEqual([
    'heads.mouse.linear.weight',
    'heads.mouse.linear.bias',
  ]);
  const { predict, config, model: own } = byHead.get('mouse')!;
  const step = predictStep({ model: (x: Tensor) => predict(x), trained: own });
  const { program } = build(step, { inputs: { x: [2, 256, 4] } });
  expect(program.outputs[0]!.shape).toEqual([2, 32, 3]);
  expect(config).toMatchObject({ binBp: 4, cropBp: 64 });
});

test('heads that a model lacks, and models of one genome, are refused', () => {
  expect(() => jointModels('enformer', ['yeast'])).toThrow(/no head yeast; it has human, mouse/);
  expect(() => jointModels('akita', ['human'])).toThrow(/akita is a model of one genome/);
  expect(() => jointModels('basenji2', ['yeast'])).toThrow(/there is no head 'yeast'/);
});
