import type { Command } from '../command-line.ts';
import { readPlanFile } from '../plan-file.ts';
import { openOutput } from '../progress.ts';
import { runTraining } from '../run.ts';
import { RUN_OPTIONS, readRunOptions } from '../run-options.ts';

export const train: Command = {
  name: 'train',
  about: 'train a model on TFRecords; the result has the same bits on any number of devices',
  examples: [
    'cohesin train --model params.json --data data/hg38 --out runs/first --devices 2',
    'cohesin train --model basset --data data/dnase --out runs/basset --steps 2000 --checkpoint-every 200',
    'cohesin train --model params.json --data data/hg38 --out runs/again --plan runs/first/plan.json',
    'cohesin train --model params.json --data data/hg38 --out runs/first --resume runs/first --devices 4',
    "cohesin train --model akita.json --data data/hic --out runs/hic --from runs/tracks/best --from-layers 'trunk.*' --rate 'trunk.*=0.1'",
  ],
  options: RUN_OPTIONS,
  run: async (options) => {
    const output = openOutput(options.flag('json'));
    const path = options.text('plan');
    const plan = path === undefined ? undefined : await readPlanFile(path);
    const result = await runTraining(readRunOptions(options, { plan }), output);
    output.say(`checkpoint ${result.checkpoint}`);
    output.event({
      event: 'end',
      steps: result.steps,
      checkpoint: result.checkpoint,
      weights: { sha256: result.hash },
    });
    output.endProgress();
    console.log(`weights sha256 ${result.hash}`);
  },
};
