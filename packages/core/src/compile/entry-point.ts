/** The whole text of a kernel around its body: what it declares, its entry point, and which workgroups have work. */
import { wgsl } from '../wgsl.ts';
import { type Declared, declareWhole, declareWindow, openWindow } from './bindings.ts';
import { WindowWord, windowWord } from './window.ts';

const MAX_WORKGROUPS_X = 65_535; // WebGPU's maxComputeWorkgroupsPerDimension

/** Values that change from run to run. 64 bytes, the guaranteed size of immediates. */
export const FRAME: string = wgsl`
  struct Frame { seed: u32, step: u32, leaf: u32, sequence: u32, k: vec4u, s0: vec4f, s1: vec4f }
  var<immediate> frame: Frame;`;

/** For all of a kernel's tensors, for windows of them, or for windows that hold part of the addends of a result. */
export type Mode = 'whole' | 'window' | 'fold';

/** What a kernel's text is put together from. */
export interface KernelParts {
  readonly mode: Mode;
  /** WGSL extensions. */
  readonly enables: ReadonlySet<string>;
  readonly helpers: ReadonlySet<string>;
  readonly functions: readonly string[];
  readonly body: string;
  readonly workgroups: number;
  readonly size: number;
  readonly inputs: readonly Declared[];
  readonly output: Declared;
}

/** A kernel's text, which waits for the pages of its tensors, and its grid of workgroups. */
export interface EntryPoint {
  readonly grid: readonly [x: number, y: number];
  readonly usesFrame: boolean;
  readonly text: (plan?: { readonly pages: readonly number[]; readonly pageBytes: number }) => string;
}

export function entryPoint(kernel: KernelParts): EntryPoint {
  const { mode, enables, helpers, functions, body, workgroups, size, inputs, output } = kernel;
  const x = Math.min(workgroups, MAX_WORKGROUPS_X);
  const y = Math.ceil(workgroups / x);
  const usesFrame = [body, ...functions].some((text) => text.includes('frame.'));
  const guard = mode === 'whole' ? `wg < ${workgroups}u` : `wg < ${windowWord(WindowWord.endWorkgroup)}`;
  const guarded = mode === 'whole' && x * y === workgroups ? body : `if (${guard}) {\n${body}\n}`;
  const first = y === 1 ? 'let wg = id.x;' : `let wg = id.y * ${x}u + id.x;`;
  const subgroup = enables.has('subgroups') ? ', @builtin(subgroup_id) subgroup: u32' : '';
  const text: EntryPoint['text'] = (plan) => wgsl`
${[
  ...[...enables].map((extension) => `enable ${extension};`),
  ...(usesFrame ? [FRAME] : []),
  ...(plan === undefined ? declareWhole(inputs, output) : declareWindow(inputs, output, plan)),
  ...helpers,
  ...functions,
]}
@compute @workgroup_size(${size})
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32${subgroup}) {
${plan === undefined ? first : openWindow(inputs.length)}
${guarded}
}`;
  return { grid: [x, y], usesFrame, text };
}
