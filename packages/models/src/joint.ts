/** Models of several genomes by name or parameters: one trunk, a head for each. */
import { basenjiParams, HUMAN_TRACKS, MOUSE_TRACKS } from './basenji/model.ts';
import { type JointModel, jointFromParams } from './builder/model.ts';
import { enformerModels, isEnformer } from './enformer/joint.ts';

/**
 * The model of the genomes named, by default of all that it has heads for: `enformer` and `basenji2`, both published with
 * `human` and `mouse`; parameters of Enformer (`{ model: { name: 'enformer', … } }`); or a parameter file with `head_human`,
 * `head_mouse`.
 *
 * @throws when the model has no such head, or as `modelFromParams`
 */
export function jointModels(params: unknown, heads?: readonly string[]): JointModel {
  if (isEnformer(params)) return enformerModels(params, heads);
  if (params === 'basenji2') return jointFromParams(basenji2Params(), heads);
  if (typeof params === 'string')
    throw new Error(
      `${params} is a model of one genome; name none in --data, or give enformer, basenji2 or a parameter file with a head for each`,
    );
  return jointFromParams(params, heads);
}

function basenji2Params(): unknown {
  const { train, model } = basenjiParams() as { train: unknown; model: Record<string, unknown> };
  const { head, ...rest } = model;
  const own = (units: number): unknown => ({ ...(head as object), units });
  return { train, model: { ...rest, head_human: own(HUMAN_TRACKS), head_mouse: own(MOUSE_TRACKS) } };
}
