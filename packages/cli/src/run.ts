import { existsSync } from 'node:fs';
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type HostTensor, kernelTableHash } from '@cohesin/core';
import { type Checkpoint, loadCheckpoint, type Validations } from '@cohesin/distributed';
import { type EventLog, openEventLog } from '@cohesin/io';
import { UsageError } from './command-line.ts';
import { describeMesh } from './device-options.ts';
import { isOver } from './early-stopping.ts';
import { type Evaluator, headline, inWords, openEvaluator } from './evaluation.ts';
import { announceWeights, type InitialWeights, readInitialWeights } from './initial-weights.ts';
import { writePlanFile } from './plan-file.ts';
import { duration, type Output, Pace } from './progress.ts';
import type { RunOptions } from './run-options.ts';
import { checkSameModel, planRun, type RunPlan } from './run-plan.ts';
import { checkBits, checkModel, planFileOf } from './run-plan-file.ts';
import { RunTrace } from './run-trace.ts';
import { biasWeights, openStudy, type Study } from './study.ts';
import { type Evaluation, type Task, usage } from './task.ts';
import { openTraining, type Training } from './training.ts';

/** What came of a run. */
export interface RunResult {
  readonly hash: string;
  readonly steps: number;
  readonly losses: readonly number[];
  readonly evaluations: readonly { readonly step: number; readonly value: number }[];
  readonly checkpoint: string;
  /** Hashes of the state at the steps that were asked for. */
  readonly hashes: ReadonlyMap<number, string>;
}

/** What a caller wants of a run besides its result. */
export interface RunHooks {
  /** Steps after which the state is hashed. */
  readonly hashAt?: readonly number[];
  /** Something to do with the training before its devices close. */
  readonly atEnd?: (training: Training) => Promise<void>;
}

/**
 * Trains as the options say: progress, TensorBoard events, validation every epoch, checkpoints. On SIGINT or SIGTERM the
 * step is finished, a checkpoint written, and the run ends.
 *
 * @throws UsageError before any work when options, model, data and checkpoint do not fit together.
 */
export async function runTraining(
  options: RunOptions,
  output: Output,
  { hashAt = [], atEnd }: RunHooks = {},
): Promise<RunResult> {
  if (options.resume === undefined) await refuseToOverwrite(options.out);
  const { study, plan, resumed, initial, weights } = await prepareRun(options);
  introduce(study, plan, resumed, output);
  if (initial !== undefined) announceWeights(study.weights, initial, output);
  const training = await openTraining(study, plan, { resumed, weights });
  try {
    if (options.plan !== undefined) checkBits(training, options.plan, output);
    await mkdir(options.out, { recursive: true });
    await writePlanFile(join(options.out, 'plan.json'), planFileOf(training));
    output.say(describeMesh(training.mesh));
    for (const line of describeStages(training)) output.say(line);
    const trace = options.trace && (await RunTrace.open(training.mesh, options.trace));
    const result = await new Run(training, options.out, output, { hashAt, trace }).toEnd();
    await atEnd?.(training);
    return result;
  } finally {
    await training.close();
  }
}

/** All of a run but its devices. */
export interface Prepared {
  readonly study: Study;
  readonly plan: RunPlan;
  readonly resumed: Checkpoint | undefined;
  readonly initial: InitialWeights | undefined;
  /** Those to begin with, with those of the bias model that a new ChromBPNet keeps. */
  readonly weights: ReadonlyMap<string, HostTensor>;
}

/** @throws UsageError when options, model, data, plan and checkpoint do not fit together. */
export async function prepareRun(options: RunOptions): Promise<Prepared> {
  return usage(async () => {
    const study = await openStudy(options.model, options);
    const resumed = options.resume === undefined ? undefined : await loadCheckpoint(options.resume);
    if (resumed !== undefined) checkSameModel(study, resumed);
    if (options.plan !== undefined) checkModel(study, options.plan);
    const plan = await planRun(study, options, resumed);
    const initial = options.from && (await readInitialWeights(study.weights, options.from));
    const bias = resumed === undefined ? await biasWeights(study, options.bias) : new Map();
    return { study, plan, resumed, initial, weights: new Map([...(initial?.weights ?? []), ...bias]) };
  });
}

async function refuseToOverwrite(out: string): Promise<void> {
  const found = await readdir(join(out, 'checkpoints')).catch(() => []);
  if (found.length === 0) return;
  throw new UsageError(
    `${out} already holds checkpoints of a run (${found.at(-1)}); go on with --resume ${out}, or choose another --out`,
  );
}

function introduce(
  { name, tasks }: Study,
  plan: RunPlan,
  resumed: Checkpoint | undefined,
  output: Output,
): void {
  const { train } = plan;
  const clip =
    train.clipNorm === undefined
      ? `all gradients to norm ${train.globalClipNorm}`
      : `each gradient to norm ${train.clipNorm}`;
  const [{ sequenceLengthBp, augment, negatives }] = tasks as [Task];
  const tracks = tasks.map(({ genome, tracks }) => `${tracks} tracks${genome ? ` of ${genome}` : ''}`);
  const turns = train.alternation === 'turns' ? 'in turns' : 'shuffled';
  output.say(
    `${name}: ${sequenceLengthBp} bp, ${tracks.join(' and ')}${tasks.length > 1 ? ` (batches ${turns})` : ''}; ${train.optimizer}, learning rate ${train.learningRate}, clipping ${clip}`,
  );
  const jitter = augment.jitterBp > 0 ? `windows within ±${augment.jitterBp} bp, ` : '';
  const background = negatives ? `${negatives.ratio} background sequences for each, ` : '';
  output.say(
    `batch ${plan.batch}, ${plan.parts > 1 ? `each sequence in ${plan.parts} parts` : `in ${plan.leaves} leaves`}, batch norm over each ${plan.batchNorm === 'step' ? 'step' : plan.parts > 1 ? 'sequence' : 'leaf'}, ${plan.precision === 'mixed' ? 'mixed precision, ' : ''}${plan.kernelTable === undefined ? '' : `kernel table ${kernelTableHash(plan.kernelTable).slice(0, 12)}, `}${augment.reverseComplement ? 'reverse complement, ' : ''}shift ±${augment.shiftBp} bp, ${jitter}${background}seed ${plan.seed}`,
  );
  const rates = Object.entries(plan.rateFactors).map(
    ([pattern, factor]) => `${pattern} learns at ${factor} of the rate`,
  );
  const layers = [...plan.frozen.map((pattern) => `${pattern} keeps its values`), ...rates];
  if (layers.length > 0) output.say(layers.join(', '));
  if (resumed !== undefined)
    output.say(
      `resumed from ${resumed.dir} at step ${resumed.host.step} of ${plan.steps}${resumed.level === 'L2' ? '; so far at level L2, on devices that differ: no run on one device has these bits' : ''}`,
    );
}

/** What the ranks of each stage hold, where there are stages. */
function describeStages({ plan, memory }: Training): readonly string[] {
  const count = plan.pipeline?.stages.length ?? 0;
  return memory().split('\n').slice(0, count);
}

/** What is looked at on the way. */
interface Observed {
  readonly hashAt: readonly number[];
  readonly trace: RunTrace | undefined;
}

/** A run from where its training stands to its last step. */
class Run {
  private readonly training: Training;
  private readonly out: string;
  private readonly output: Output;
  private readonly hashAt: readonly number[];
  private readonly trace: RunTrace | undefined;
  private readonly hashes = new Map<number, string>();
  private readonly pace = new Pace();
  private readonly losses: number[] = [];
  private readonly evaluations: { step: number; value: number }[] = [];
  private checkpoint = '';
  private saved = -1;
  private stopping = false;

  constructor(training: Training, out: string, output: Output, { hashAt, trace }: Observed) {
    this.hashAt = hashAt;
    this.trace = trace;
    this.training = training;
    this.out = out;
    this.output = output;
  }

  async toEnd(): Promise<RunResult> {
    const stop = (): void => {
      this.stopping = true;
    };
    process.once('SIGINT', stop).once('SIGTERM', stop);
    const events = await openEventLog(join(this.out, 'events'));
    try {
      await this.steps(events, await this.evaluators());
      await this.save();
      await this.trace?.write(); // of a run with fewer steps
    } finally {
      await events.close();
      process.off('SIGINT', stop).off('SIGTERM', stop);
    }
    return this.result();
  }

  private get step(): number {
    return this.training.host.step;
  }

  /** Of each genome that has validation sequences. */
  private async evaluators(): Promise<ReadonlyMap<Task, Evaluator>> {
    const { study, mesh, weights, plan } = this.training;
    const { batch, leaves, parts, replicas, pipeline } = plan;
    const sequencesPerLeaf = batch / leaves;
    const evaluators = new Map<Task, Evaluator>();
    for (const task of study.tasks) {
      if (task.dataset.splits.valid === undefined) continue;
      const options = { mesh, state: weights, sequencesPerLeaf, parts, replicas, pipeline };
      evaluators.set(task, await openEvaluator(task, options));
    }
    return evaluators;
  }

  private async steps(events: EventLog, evaluators: ReadonlyMap<Task, Evaluator>): Promise<void> {
    const { plan } = this.training;
    if (this.isOver) this.sayOver();
    if (this.step >= plan.steps || this.isOver) return;
    const batches = this.training.batches();
    for await (const batch of this.trace?.reading(batches) ?? batches) {
      const loss = await this.timed(`step ${this.step}`, () => this.training.train(batch));
      this.report(loss, batch.task, events);
      if ((await this.trace?.stepped()) === true) this.sayTraced();
      if (this.hashAt.includes(this.step)) this.hashes.set(this.step, await this.training.hash());
      const last = this.step >= plan.steps || this.stopping;
      if (evaluators.size > 0 && (this.isEpoch || last))
        await this.timed('validation', () => this.validate(evaluators, events));
      if (last || this.isOver) break;
      if (this.step % plan.checkpointEvery === 0) await this.save();
    }
    if (this.isOver) this.sayOver();
    if (this.stopping) this.output.say(`stopped at step ${this.step}; go on with --resume ${this.out}`);
  }

  private timed<T>(name: string, body: () => Promise<T>): Promise<T> {
    return this.trace === undefined ? body() : this.trace.span(name, body);
  }

  private sayTraced(): void {
    this.output.say(
      `times of ${this.trace!.options.steps} steps in ${this.trace!.options.path}; open it in ui.perfetto.dev`,
    );
  }

  private report(loss: number, { genome }: Task, events: EventLog): void {
    const { plan } = this.training;
    const sequencesPerSecond = this.pace.step() * plan.batch;
    const eta = ((plan.steps - this.step) * plan.batch) / sequencesPerSecond;
    const epoch = (this.step / plan.stepsPerEpoch).toFixed(2);
    this.losses.push(loss);
    events.scalar(genome === undefined ? 'train/loss' : `train/loss/${genome}`, loss, this.step);
    events.scalar('train/sequences_per_second', sequencesPerSecond, this.step);
    const of = genome === undefined ? {} : { genome };
    this.output.event({
      event: 'step',
      step: this.step,
      epoch: Number(epoch),
      ...of,
      loss,
      sequencesPerSecond,
    });
    this.output.progress(
      `step ${this.step}/${plan.steps}  epoch ${epoch}  loss ${loss.toPrecision(5)}  ${sequencesPerSecond.toPrecision(3)} sequences/s  ETA ${duration(eta)}`,
    );
  }

  /** Of several genomes the mean counts. */
  private async validate(evaluators: ReadonlyMap<Task, Evaluator>, events: EventLog): Promise<void> {
    const found: [Task, Evaluation][] = [];
    for (const [task, evaluator] of evaluators)
      found.push([task, await this.pace.pause(() => evaluator.run('valid'))]);
    const value = found.reduce((sum, [, evaluation]) => sum + evaluation.value, 0) / found.length;
    const [[, first]] = found as [[Task, Evaluation]];
    const metric = headline(first);
    this.evaluations.push({ step: this.step, value });
    events.scalar(`valid/${metric}`, value, this.step);
    await events.flush();
    const before = this.training.rateFactor;
    if (this.isEpoch) await this.training.validated(value, first.better, this.out); // others depend on where a run was interrupted
    const { rateFactor } = this.training;
    const lowered = rateFactor < 1 ? { rateFactor } : {};
    const { best, unimproved } = this.training.validations;
    const counted = this.isEpoch ? { best, unimproved } : {};
    const byGenome = Object.fromEntries(
      found.flatMap(([{ genome }, evaluation]) => (genome === undefined ? [] : [[genome, evaluation.value]])),
    );
    const genomes = Object.keys(byGenome).length > 0 ? { byGenome } : {};
    this.output.event({
      event: 'validation',
      step: this.step,
      metric,
      value,
      ...genomes,
      ...counted,
      ...lowered,
    });
    const words = found.map(
      ([{ genome }, evaluation]) => `${genome ? `${genome} ` : ''}${inWords(evaluation)}`,
    );
    const recent = this.losses.slice(-this.training.plan.stepsPerEpoch);
    const loss = recent.reduce((a, b) => a + b, 0) / recent.length;
    this.output.say(
      `step ${this.step}: training loss ${loss.toPrecision(5)}, validation ${words.join('; ')}${this.isEpoch ? this.comparedWithBest() : ''}`,
    );
    if (rateFactor < before)
      this.output.say(
        `the learning rate goes down to ${rateFactor} of its schedule, as validation has not improved`,
      );
  }

  private comparedWithBest(): string {
    const { best, unimproved, patience } = this.training.validations;
    if (unimproved === 0) return '; the best so far';
    return `; ${unimproved} of ${patience} validations without a better one than ${bestText(best)}`;
  }

  private sayOver(): void {
    const { best, unimproved } = this.training.validations;
    const kept = join(this.out, 'best');
    const path = existsSync(kept) ? kept : undefined; // a run resumed into another folder may leave it behind
    this.output.event({ event: 'early stop', step: this.step, unimproved, best, path });
    this.output.say(
      `stopped early at step ${this.step}: ${unimproved} validations without a better one than ${bestText(best)}${path === undefined ? '' : `, kept in ${path}`}`,
    );
  }

  private get isEpoch(): boolean {
    return this.step % this.training.plan.stepsPerEpoch === 0;
  }

  /** Whether validation has not improved for too long. */
  private get isOver(): boolean {
    const { validations, plan } = this.training;
    return isOver(validations, plan.stopping, this.step / plan.stepsPerEpoch);
  }

  private async save(): Promise<void> {
    if (this.saved === this.step) return;
    this.checkpoint = await this.timed('checkpoint', () => this.training.save(this.out));
    this.saved = this.step;
    this.output.event({ event: 'checkpoint', step: this.step, path: this.checkpoint });
  }

  private async result(): Promise<RunResult> {
    const { losses, evaluations, checkpoint, hashes } = this;
    return { hash: await this.training.hash(), steps: this.step, losses, evaluations, checkpoint, hashes };
  }
}

function bestText(best: Validations['best']): string {
  return best === undefined ? 'none' : `${best.value.toFixed(4)} at step ${best.step}`;
}
