import { adam, compile, Device, nn, relu, trainStep } from '@cohesin/core';
import { basenjiBatches } from '@cohesin/io';

const block = (inputs: number, outputs: number, size: number): nn.Layer => {
  const conv = nn.conv1d({ inputs, outputs, size, padding: 'same' });
  return nn.sequential({
    conv,
    norm: nn.batchNorm({ channels: outputs }),
    relu,
    pool: nn.maxPool({ size: 4 }),
  });
};
const head = nn.linear({ inputs: 32, outputs: 4 });
const model = nn.sequential({ stem: block(4, 16, 15), deep: block(16, 32, 5), head, rate: nn.softplus });
const train = trainStep({ model, loss: nn.poissonLoss, optimizer: adam({ learningRate: 5e-3 }) });

const device = await Device.open();
const step = await compile(train, { device, leaves: 4, inputs: { x: [4, 1024, 4], y: [4, 64, 4] } });
console.log(step.program.memory());
for await (const batch of basenjiBatches('data', { size: 4, shuffle: 64 }))
  console.log((await step(batch)).loss?.data[0]);
await device.close();
