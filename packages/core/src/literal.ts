/**
 * A number as a WGSL f32 literal, exactly as `Math.fround` rounds it.
 *
 * @throws for NaN and infinities: WGSL refuses constant expressions that are not finite.
 */
export function literal(value: number): string {
  const rounded = Math.fround(value);
  if (!Number.isFinite(rounded))
    throw new Error(`${value} cannot be an f32 constant in WGSL; it must be finite in f32`);
  const text = Object.is(rounded, -0) ? '-0.0' : String(rounded);
  return `${/[.e]/.test(text) ? text : `${text}.0`}${/e/.test(text) ? 'f' : ''}`;
}
