import { afterAll, beforeAll, expect, test } from 'vitest';
import { build, buildStages, initialState } from './compile/compile.ts';
import { Device } from './device.ts';
import { alone, type Parcel, type PipelineExchange } from './exchange.ts';
import { Executor } from './executor.ts';
import { initialScales } from './gradient-scale.ts';
import { nn } from './index.ts';
import { dropout } from './ops/random.ts';
import { adam } from './optim/adam.ts';
import { clipGlobalNorm } from './optim/norms.ts';
import { type StageAction, StageExecutor } from './stage-executor.ts';
import { StateStore } from './state.ts';
import { Together } from './testing/together.ts';
import { trainStep } from './train-step.ts';

let device: Device;
beforeAll(async () => {
  device = await Device.open();
});
afterAll(async () => device.close());

const LEAVES = 4;
const LENGTH = 32;
const SHAPES = { x: [LEAVES, LENGTH, 4], y: [LEAVES, LENGTH / 2, 3] };
const STAGES = ['stem', 'deep', 'head'];

const optimizer = adam({ learningRate: 1e-2, clip: clipGlobalNorm(0.5) });
const step = () =>
  trainStep({
    model: nn.sequential({
      stem: nn.conv1d({ inputs: 4, outputs: 6, size: 5, padding: 'same' }),
      norm: nn.batchNorm({ channels: 6 }),
      pool: nn.maxPool({ size: 2 }),
      deep: nn.conv1d({ inputs: 6, outputs: 6, size: 3, padding: 'same' }),
      drop: (x) => dropout(x, { rate: 0.3, name: 'drop' }),
      head: nn.linear({ inputs: 6, outputs: 3 }),
      rate: nn.softplus,
    }),
    loss: nn.poissonLoss,
    optimizer,
  });

const values = (count: number, k: number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => Math.sin(i * 12.9898 + k) * 1.7);
const INPUTS = { x: values(LEAVES * LENGTH * 4, 1), y: values((LEAVES * LENGTH * 3) / 2, 2).map(Math.abs) };
const FRAME = { seed: 5, step: 0, sequence: 0, scalars: optimizer.scalars(optimizer.counters()) };

interface Message {
  readonly parcels: Parcel[];
  readonly promise: Promise<readonly Parcel[]>;
  readonly resolve: (parcels: readonly Parcel[]) => void;
}

function newMessage(): Message {
  let resolve: Message['resolve'] = () => undefined;
  const promise = new Promise<readonly Parcel[]>((done) => {
    resolve = done;
  });
  return { parcels: [], promise, resolve };
}

/** Stages of one process: messages wait in a map, gathers for everyone. */
class Stages {
  private readonly messages = new Map<string, Message>();
  readonly exchange: PipelineExchange = {
    stage: alone,
    all: new Together(STAGES.length, 8).exchange(), // norms go in several turns
    arrived: () => false,
    receive: async ({ from, to }, microbatch, take) => {
      for (const parcel of await this.message(`${from} ${to} ${microbatch}`).promise) take(parcel);
    },
    outgoing: ({ from, to, tensors }, microbatch) => {
      const { parcels } = this.message(`${from} ${to} ${microbatch}`);
      for (const [tensor, { bytes, parts }] of tensors.entries())
        for (let part = parts?.[0] ?? 0; part < (parts?.[1] ?? 1); part++)
          parcels.push({ tensor, part: parts && part, memory: new Uint8Array(bytes) });
      return parcels;
    },
    send: ({ from, to }, microbatch) => {
      const { parcels, resolve } = this.message(`${from} ${to} ${microbatch}`);
      resolve(parcels);
    },
    enter: () => undefined,
  };

  private message(key: string): Message {
    const message = this.messages.get(key) ?? newMessage();
    this.messages.set(key, message);
    return message;
  }
}

type Kind = StageAction['kind'];
const action = (kind: Kind, microbatch: number): StageAction => ({ kind, microbatch });
/** As far ahead as each stage may be, and weight gradients last: what shares memory is long in use. */
const zeroBubble = (stage: number): StageAction[] => {
  const ahead = STAGES.length - stage;
  const actions: StageAction[] = [];
  for (let i = 0; i < LEAVES + ahead - 1; i++) {
    if (i < LEAVES) actions.push(action('forward', i));
    if (i >= ahead - 1) actions.push(action('inputGradient', i - ahead + 1));
  }
  for (let i = 0; i < LEAVES; i++) actions.push(action('weightGradient', i));
  return actions;
};

test.each([
  ['sequences', { leaves: LEAVES }],
  ['sequences in parts', { leavesPerSequence: 4 }],
] as const)(
  'stages of %s whose memory is full of NaN give the weights of one program, bit for bit',
  async (_, cut) => {
    const options = { ...cut, inputs: SHAPES };
    const { program, parameters } = build(step(), options);
    const state = initialState(parameters, 5);
    const store = new StateStore(device);
    const whole = await Executor.create(device, program, store);
    store.write(state);
    whole.setInputs(INPUTS);
    let q = initialScales(program.sums!);
    const first = await whole.run(FRAME, alone, q);
    if (first!.kind === 'repeat') {
      q = first!.q; // gradients this small need finer scales
      expect((await whole.run(FRAME, alone, q))!.kind).toBe('commit');
    }
    const expected = await store.read();

    const { stages } = buildStages(step(), { ...options, stages: STAGES, splitBackward: true }).program;
    const together = new Stages();
    const stores = stages.map(() => new StateStore(device));
    const executors = await Promise.all(
      stages.map((stage, i) => StageExecutor.create(device, stage, stores[i]!, { actions: zeroBubble(i) })),
    );
    for (const [i, { state: own }] of stages.entries())
      stores[i]!.write(new Map(own.map(({ name }) => [name, state.get(name)!])));
    for (const executor of executors) {
      executor.poison();
      executor.setInputs(INPUTS);
    }
    const decisions = await Promise.all(
      executors.map((executor) => executor.run(FRAME, together.exchange, q)),
    );
    expect(decisions.map((decision) => decision!.kind)).toEqual(['commit', 'commit', 'commit']);
    const found = new Map((await Promise.all(stores.map((own) => own.read()))).flatMap((read) => [...read]));
    expect([...found.keys()].sort()).toEqual([...expected.keys()].sort());
    for (const [name, { data }] of expected) expect(found.get(name)!.data, name).toEqual(data);
    for (const executor of [whole, ...executors]) executor.close();
    for (const own of [store, ...stores]) own.close();
  },
);
