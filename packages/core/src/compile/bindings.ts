/** WGSL of the tensors that a kernel is bound to: as they are, or as windows and pages of them. */

import { elementCount } from '../host-tensor.ts';
import { WINDOW_BYTES } from '../program.ts';
import type { DType } from '../tensor.ts';
import { wgsl } from '../wgsl.ts';
import type { Stored } from './stored.ts';
import { type Operand, WindowWord, windowWord } from './window.ts';

/** A tensor as a kernel's text declares it. */
export interface Declared extends Operand {
  /** Indexed four values at a time. */
  readonly wide: boolean;
  /** WGSL type of a word. */
  readonly type: string;
}

/** How a kernel declares a stored tensor. */
export function declared(spec: Stored, wide: boolean, isOutput: boolean): Declared {
  const { shape, dtype } = spec;
  const bytesPerElement = dtype === 'u8' ? 1 : dtype === 'f16' ? 2 : 4;
  const [type, wordBytes] = wordOf(dtype, wide, isOutput);
  return { shape, dtype, wide, elements: elementCount(shape), bytesPerElement, type, wordBytes };
}

/** What a text indexes of a tensor, and its bytes. Inputs of fewer bits are read as u32, so that no extension is needed. */
function wordOf(dtype: DType, wide: boolean, isOutput: boolean): readonly [type: string, bytes: number] {
  if (dtype === 'f32') return wide ? ['vec4f', 16] : ['f32', 4];
  if (dtype !== 'f16') return ['u32', 4];
  if (isOutput) return wide ? ['vec4h', 8] : ['f16', 2];
  return wide ? ['vec2u', 8] : ['u32', 4];
}

/** Declares the inputs `b0`…, their scalar loaders `load0`…, and the output `y`. */
export function declareWhole(inputs: readonly Declared[], output: Declared): string[] {
  return [
    ...inputs.map(
      (input, k) =>
        `@group(0) @binding(${k}) var<storage, read> b${k}: array<${input.type}>;\n${loader(input, k, (w) => `b${k}[${w}]`)}`,
    ),
    `@group(0) @binding(${inputs.length}) var<storage, read_write> y: array<${output.type}>;`,
  ];
}

/**
 * As above, for windows: `word0(w)`… give word w of an input whatever part of it is bound, `getY(w)` and `putY(w, v)` that of
 * the output. `pages` and `pageBytes` are those of the plan.
 */
export function declareWindow(
  inputs: readonly Declared[],
  output: Declared,
  { pages, pageBytes }: { readonly pages: readonly number[]; readonly pageBytes: number },
): string[] {
  let binding = 0;
  const texts = [...inputs, output].map((operand, k) => {
    const isOutput = k === inputs.length;
    const name = isOutput ? 'y' : `b${k}`;
    const { type } = operand;
    const access = isOutput ? 'read_write' : 'read';
    const size = pageBytes / operand.wordBytes;
    const page = (action: (page: string) => string): string =>
      choose(pages[k]!, size, (p) => action(`${name}_${p}[${p === 0 ? 'at' : `at - ${p * size}u`}]`));
    const at = `let at = w - ${name}_start;`;
    return [
      ...Array.from(
        { length: pages[k]! },
        (_, p) => `@group(0) @binding(${binding++}) var<storage, ${access}> ${name}_${p}: array<${type}>;`,
      ),
      `var<private> ${name}_start: u32;`,
      isOutput
        ? `fn putY(w: u32, v: ${type}) { ${at} ${page((word) => `${word} = v;`)} }
fn getY(w: u32) -> ${type} { ${at} ${page((word) => `return ${word};`)} }`
        : `fn word${k}(w: u32) -> ${type} { ${at} ${page((word) => `return ${word};`)} }
${loader(operand, k, (w) => `word${k}(${w})`)}`,
    ].join('\n');
  });
  return [
    ...texts,
    `@group(0) @binding(${binding}) var<uniform> window: array<vec4u, ${WINDOW_BYTES / 16}>;`,
  ];
}

/** What `main` begins with in a windowed kernel. */
export function openWindow(inputs: number): string {
  const starts = Array.from({ length: inputs + 1 }, (_, k) => {
    return `${k === inputs ? 'y' : `b${k}`}_start = ${windowWord(WindowWord.starts + k)};`;
  });
  return wgsl`
    let wg = ${windowWord(WindowWord.firstWorkgroup)} + id.y * ${windowWord(WindowWord.workgroupsX)} + id.x;
    let unitFrom = ${windowWord(WindowWord.firstUnit)};
    let unitTo = ${windowWord(WindowWord.endUnit)};
    let termFrom = ${windowWord(WindowWord.firstTerm)};
    let termTo = ${windowWord(WindowWord.endTerm)};
    let progress = ${windowWord(WindowWord.progress)};
    ${starts}`;
}

/** A statement for the page that word `at` lies in. */
function choose(pages: number, size: number, statement: (page: number) => string): string {
  const last = statement(pages - 1);
  return Array.from({ length: pages - 1 }, (_, p) => p).reduceRight(
    (rest, p) => `if (at < ${(p + 1) * size}u) { ${statement(p)} } else { ${rest} }`,
    last,
  );
}

/** The scalar loader of binding k, given how a word of it is read. */
function loader({ dtype, wide }: Declared, k: number, word: (w: string) => string): string {
  const element = {
    f32: wide ? `${word('i >> 2u')}[i & 3u]` : word('i'),
    u32: `f32(${word('i')})`,
    i32: `f32(bitcast<i32>(${word('i')}))`,
    f16: `unpack2x16float(${wide ? `${word('i >> 2u')}[(i >> 1u) & 1u]` : word('i >> 1u')})[i & 1u]`,
    u8: `f32((${word('i >> 2u')} >> ((i & 3u) * 8u)) & 0xffu)`,
  } satisfies Record<DType, string>;
  return `fn load${k}(i: u32) -> f32 { return ${element[dtype]}; }`;
}
