import { elementCount } from '../host-tensor.ts';
import type { KernelBody } from '../kernel.ts';
import { spans } from '../kernels/touches.ts';
import type { Spec } from '../tensor.ts';
import { wgsl } from '../wgsl.ts';

const LANES = 64; // one workgroup's invocations: two warps or one wavefront

/** A shader with one invocation for each element of y; the body finds its flat index in `i` and stores there. */
export function perElement(y: Spec, body: string, declarations = ''): KernelBody {
  const count = elementCount(y.shape);
  const guarded = wgsl`
    let i = wg * ${LANES}u + lane;
    if (i < ${count}u) {
      ${body}
    }
  `;
  return {
    body: guarded,
    declarations,
    workgroupSize: LANES,
    workgroups: Math.ceil(count / LANES),
    touches: (from, to) => ({ y: spans([from, to], LANES, count) }),
  };
}
