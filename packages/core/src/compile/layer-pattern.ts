/** A layer path from the front, `*` for one name: `tower.*` matches `tower.0.conv` by its `tower.0`. */
export function layerPattern(pattern: string): RegExp {
  const names = pattern
    .split('.')
    .map((name) => (name === '*' ? '[^.]+' : name.replaceAll(/[^\w*]/g, '\\$&')));
  return new RegExp(`^${names.join('\\.')}(?=\\.|$)`);
}
