/**
 * A template for WGSL text: joins arrays by newlines and removes the common indentation, so that kernels read well both
 * in the source and in error messages.
 */
export function wgsl(
  strings: TemplateStringsArray,
  ...values: readonly (string | number | readonly string[])[]
): string {
  const text = strings.reduce((joined, part, i) => {
    const value = values[i - 1];
    return joined + (Array.isArray(value) ? value.join('\n') : String(value)) + part;
  });
  const lines = text.replace(/^\n/, '').trimEnd().split('\n');
  const indents = lines
    .filter((line) => line.trim() !== '')
    .map((line) => line.length - line.trimStart().length);
  const common = Math.min(...indents);
  return lines.map((line) => line.slice(Math.min(common, line.length - line.trimStart().length))).join('\n');
}
