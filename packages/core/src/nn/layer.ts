import { globPattern } from '../glob.ts';
import { Parameter } from '../parameter.ts';
import { withLayer } from '../scope.ts';
import type { Tensor } from '../tensor.ts';

/** A function of tensors that carries parameters. Layers nest; the outermost one is a model. */
export interface Layer<In = Tensor, Out = Tensor> {
  (x: In): Out;
  readonly parts: Parts;
}

/** Any layer, whatever it takes and gives. */
export type AnyLayer = Layer<never, unknown>;

/** What a layer is made of; the keys name parameters in checkpoints and layers in errors. */
export type Parts = Readonly<Record<string, Parameter | AnyLayer | readonly AnyLayer[] | undefined>>;

const names = new WeakMap<object, string>();

/**
 * Makes a layer from its parts and what it does with them. Whatever `forward` records carries the layer's path.
 *
 * @throws when a layer among the parts already goes by another name.
 */
export function layer<In = Tensor, Out = Tensor>(parts: Parts, forward: (x: In) => Out): Layer<In, Out> {
  for (const [name, part] of namedParts(parts)) {
    if (part instanceof Parameter) continue;
    const other = names.get(part) ?? name;
    if (other !== name) {
      throw new Error(
        `layer: the part '${name}' is already called '${other}'; use one name, or make a second layer`,
      );
    }
    names.set(part, name);
  }
  const self = (x: In): Out => withLayer(names.get(self) ?? '', () => forward(x));
  return Object.assign(self, { parts });
}

/**
 * All parameters and buffers below a layer, in order, by dotted path (`tower.2.conv.weight`). Sets their names.
 *
 * @throws when a parameter already has another name, or stands in two places.
 */
export function parameters(model: AnyLayer): Map<string, Parameter> {
  const found = new Map<string, Parameter>();
  collect(model, '', found);
  for (const [path, parameter] of found) {
    if (parameter.name !== '' && parameter.name !== path) {
      throw new Error(
        `parameters: ${path} is already called ${parameter.name}; a parameter has one place in one model`,
      );
    }
    parameter.name = path;
  }
  return found;
}

/**
 * The parameters below a layer whose dotted path matches a pattern, `*` for any characters (`tower.2.*`, `*.bias`).
 *
 * @throws when there is none.
 */
export function matching(model: AnyLayer, pattern: string): Parameter[] {
  const glob = globPattern(pattern);
  const all = [...parameters(model)];
  const found = all.flatMap(([path, parameter]) => (glob.test(path) ? [parameter] : []));
  if (found.length > 0) return found;
  const paths = all.map(([path]) => path);
  throw new Error(`no parameter matches '${pattern}'; there are ${paths.slice(0, 8).join(', ')}, …`);
}

function collect({ parts }: AnyLayer, prefix: string, found: Map<string, Parameter>): void {
  for (const [name, part] of namedParts(parts)) {
    if (part instanceof Parameter) found.set(prefix + name, part);
    else collect(part, `${prefix}${name}.`, found);
  }
}

/** The parts with a list's members as `key.0`, `key.1`, … */
function namedParts(parts: Parts): (readonly [string, Parameter | AnyLayer])[] {
  return Object.entries(parts).flatMap(([key, part]) => {
    if (part === undefined) return [];
    if (part instanceof Parameter || typeof part === 'function') return [[key, part] as const];
    return part.map((member, i) => [`${key}.${i}`, member] as const);
  });
}
