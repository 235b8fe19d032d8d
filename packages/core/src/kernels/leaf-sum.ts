import { wgsl } from '../wgsl.ts';

/** Gradient elements one invocation adds or finishes. */
const STRIP = 16;
const WORKGROUP = 64;

/** Invocations needed to add a gradient of `count` values. */
export function accumulateWorkgroups(count: number): number {
  return Math.ceil(count / (STRIP * WORKGROUP));
}

export function finishWorkgroups(count: number): number {
  return accumulateWorkgroups(count);
}

/**
 * Adds round(g / 2^q) of a leaf's gradient g to 64-bit accumulators, and keeps the largest bits of |g|.
 * All in integers, so that no driver can round, fuse or flush differently: bit patterns of finite f32 grow with |g|,
 * and those of infinities and NaN lie above them all.
 * `frame.k.x` is the index of the tensor, `.y` its element count, `.z` the workgroups in a row of the dispatch.
 */
export function accumulateCode(frame: string): string {
  return wgsl`
${frame}
@group(0) @binding(0) var<storage, read> g: array<u32>;
@group(0) @binding(1) var<storage, read> q: array<i32>;
@group(0) @binding(2) var<storage, read_write> sum: array<vec2u>;
@group(0) @binding(3) var<storage, read_write> peak: array<atomic<u32>>;

// magnitude · 2^shift rounded to the nearest integer, halves away from zero
fn scaled(mantissa: u32, shift: i32) -> vec2u {
  if (shift < 0) {
    let down = u32(-shift);
    if (down > 25u) { return vec2u(0u, 0u); }
    return vec2u((mantissa + (1u << (down - 1u))) >> down, 0u);
  }
  let up = min(u32(shift), 39u);
  if (up == 0u) { return vec2u(mantissa, 0u); }
  if (up < 32u) { return vec2u(mantissa << up, mantissa >> (32u - up)); }
  return vec2u(0u, mantissa << (up - 32u));
}

@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
  let wg = id.y * frame.k.z + id.x;
  let unit = q[frame.k.x];
  var largest = 0u;
  for (var k = 0u; k < ${STRIP}u; k++) {
    let i = wg * ${STRIP * WORKGROUP}u + k * ${WORKGROUP}u + lane;
    if (i < frame.k.y) {
      let bits = g[i];
      let magnitude = bits & 0x7fffffffu;
      largest = max(largest, magnitude);
      let exponent = i32(magnitude >> 23u);
      let mantissa = (magnitude & 0x7fffffu) | select(0x800000u, 0u, exponent == 0);
      var value = scaled(mantissa, max(exponent, 1) - 150 - unit);
      if (bits != magnitude) {
        value = vec2u(~value.x + 1u, ~value.y + select(0u, 1u, value.x == 0u));
      }
      let before = sum[i];
      let low = before.x + value.x;
      sum[i] = vec2u(low, before.y + value.y + select(0u, 1u, low < value.x));
    }
  }
  atomicMax(&peak[frame.k.x], largest);
}`;
}

/** Turns finished 64-bit sums into f32 gradients, rounded once, to nearest even, in integers. Immediates as above. */
export function finishCode(frame: string): string {
  return wgsl`
${frame}
@group(0) @binding(0) var<storage, read> sum: array<vec2u>;
@group(0) @binding(1) var<storage, read> q: array<i32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
  let wg = id.y * frame.k.z + id.x;
  let unit = q[frame.k.x];
  for (var k = 0u; k < ${STRIP}u; k++) {
    let i = wg * ${STRIP * WORKGROUP}u + k * ${WORKGROUP}u + lane;
    if (i < frame.k.y) {
      var v = sum[i];
      let negative = v.y >> 31u;
      if (negative == 1u) { v = vec2u(~v.x + 1u, ~v.y + select(0u, 1u, v.x == 0u)); }
      var bits = 0u;
      if ((v.x | v.y) != 0u) {
        let top = select(31u - countLeadingZeros(v.x), 63u - countLeadingZeros(v.y), v.y != 0u);
        // the 64 bits moved up so that the leading one is bit 63
        let up = 63u - top;
        var h = v;
        if (up >= 32u) { h = vec2u(0u, v.x << (up - 32u)); }
        else if (up > 0u) { h = vec2u(v.x << up, (v.y << up) | (v.x >> (32u - up))); }
        var mantissa = h.y >> 8u;
        let rest = h.y & 0xffu;
        let more = rest > 0x80u || (rest == 0x80u && (h.x != 0u || (mantissa & 1u) == 1u));
        mantissa += select(0u, 1u, more);
        // adding the mantissa to the exponent field carries a rounding overflow into the exponent
        let exponent = i32(top) + unit + 126;
        if (exponent >= 254) { bits = 0x7f800000u; }
        else if (exponent >= 0) { bits = (u32(exponent) << 23u) + mantissa; }
      }
      y[i] = bits | (negative << 31u);
    }
  }
}`;
}
