import { expect, test } from 'vitest';
import { relu } from '../ops/elementwise.ts';
import { input, parameter } from '../parameter.ts';
import type { Tensor } from '../tensor.ts';
import { conv1d } from './conv.ts';
import { layer, parameters } from './layer.ts';
import { linear } from './linear.ts';
import { batchNorm } from './norm.ts';
import { dropout, maxPool } from './pool.ts';
import { sequential } from './sequential.ts';

const block = (inputs: number, outputs: number) =>
  sequential({
    conv: conv1d({ inputs, outputs, size: 5, bias: false }),
    norm: batchNorm({ channels: outputs }),
    activation: relu,
    drop: dropout({ rate: 0.1 }),
    pool: maxPool({ size: 4 }),
  });

test('parameters are named by their dotted paths, in order, with buffers', () => {
  const model = sequential({ stem: block(4, 8), head: linear({ inputs: 8, outputs: 3 }) });
  const found = parameters(model);
  expect([...found].map(([path, { shape, trainable }]) => [path, ...shape, trainable])).toEqual([
    ['stem.conv.weight', 5, 4, 8, true],
    ['stem.norm.weight', 8, true],
    ['stem.norm.bias', 8, true],
    ['stem.norm.running_mean', 8, false],
    ['stem.norm.running_var', 8, false],
    ['head.weight', 8, 3, true],
    ['head.bias', 3, true],
  ]);
  expect([...found].every(([path, { name }]) => name === path)).toBe(true);
  expect([...parameters(model).keys()]).toEqual([...found.keys()]); // a second time changes nothing
});

test('tensors carry the path of the layer or function that made them', () => {
  const model = sequential({ stem: block(4, 8), head: linear({ inputs: 8, outputs: 3 }) });
  const y = model(input('x', [2, 40, 4]));
  expect(y.shape).toEqual([2, 10, 3]);
  expect(y.path).toBe('head');
  const pool = Object.values(Object.values(y.inputs)[0]!.inputs)[0]!;
  expect(pool.path).toBe('stem.pool');
  expect(pool.inputs.x!.path).toBe('stem.activation');
});

test('lists of layers are numbered', () => {
  const tower = [linear({ inputs: 2, outputs: 2 }), linear({ inputs: 2, outputs: 2, bias: false })];
  const model = layer({ tower }, (x: Tensor) => tower.reduce((y, stage) => stage(y), x));
  expect([...parameters(model).keys()]).toEqual(['tower.0.weight', 'tower.0.bias', 'tower.1.weight']);
  const same = sequential({ tower: sequential([linear({ inputs: 2, outputs: 2, bias: false })]) });
  expect([...parameters(same).keys()]).toEqual(['tower.0.weight']);
  expect(model(input('x', [1, 2])).path).toBe('tower.1');
});

test('errors begin with the path of the layer', () => {
  const model = sequential({ trunk: sequential({ conv: conv1d({ inputs: 7, outputs: 8, size: 3 }) }) });
  expect(() => model(input('x', [1, 9, 4]))).toThrow(/^in trunk\.conv: conv1d: .*4.*7/);
});

test('a parameter has one place and a layer one name', () => {
  const shared = parameter([3]);
  const twice = layer({ a: shared, b: shared }, (x: Tensor) => x);
  expect(() => parameters(twice)).toThrow(/b is already called a/);
  const stage = linear({ inputs: 1, outputs: 1 });
  sequential({ one: stage });
  expect(() => sequential({ two: stage })).toThrow(/'two' is already called 'one'/);
});
