/** Reference files to models. */
import { basenjiFromGolden } from './basenji/weights.ts';
import { basenji1FromGolden } from './basenji1/weights.ts';
import { bassetFromGolden } from './basset/weights.ts';
import { bpnetFromGolden, originalBpnetFromGolden } from './bpnet/weights.ts';
import { akitaFromGolden, borzoiFromGolden } from './builder/golden.ts';
import { chrombpnetFromGolden } from './chrombpnet/weights.ts';
import { enformerFromGolden } from './enformer/weights.ts';
import type { GoldenCase } from './golden-case.ts';

const MODELS: Readonly<Record<string, (config: unknown) => GoldenCase>> = {
  akita: akitaFromGolden,
  basset: bassetFromGolden,
  basenji2: basenjiFromGolden,
  basenji1: basenji1FromGolden,
  borzoi: borzoiFromGolden,
  bpnet: bpnetFromGolden,
  bpnet_orig: originalBpnetFromGolden,
  chrombpnet: chrombpnetFromGolden,
  enformer: enformerFromGolden,
};

/** The model that a reference file's `config` metadata (parsed JSON) describes. @throws when its `model` is unknown. */
export function fromGolden(config: unknown): GoldenCase {
  const { model } = config as { readonly model?: unknown };
  const make = typeof model === 'string' && Object.hasOwn(MODELS, model) ? MODELS[model] : undefined;
  if (make !== undefined) return make(config);
  throw new Error(
    `config.model: expected one of ${Object.keys(MODELS).join(', ')}, found ${JSON.stringify(model)}`,
  );
}
