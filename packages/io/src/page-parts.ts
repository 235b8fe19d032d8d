/** Parts of pages that need nothing else: no scripts, no files beside them. */
import { crc32, deflateSync } from 'node:zlib';

const STYLE = `body{font:14px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;font-size:13px}
td,th{text-align:right;padding:.15rem .6rem;border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}
code,td.hash{font-family:ui-monospace,monospace;font-size:12px}.warn{background:#fff4d6;padding:.4rem .8rem}
.facts td{text-align:left}.problem{background:#fde2e0;padding:.4rem .8rem}svg{font-size:12px;max-width:100%}svg rect,svg path{fill:#3b6ea5}
img{image-rendering:pixelated;display:block}`;

/** `body` is HTML; the title is text. */
export function page(title: string, body: string): string {
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>${plain(title)}</title><style>${STYLE}</style></head><body>
${body}
</body></html>
`;
}

/** Cells are HTML. */
export function table(
  header: readonly string[],
  rows: readonly (readonly string[])[],
  kind?: 'facts',
): string {
  const row = (cells: readonly string[], tag: string): string =>
    `<tr>${cells.map((cell) => `<${tag}>${cell}</${tag}>`).join('')}</tr>`;
  return `<table${kind ? ` class="${kind}"` : ''}>${header.length > 0 ? row(header, 'th') : ''}${rows.map((cells) => row(cells, 'td')).join('\n')}</table>`;
}

/** Text as HTML. */
export function plain(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

/** `12 %` of a whole, with two digits that matter. */
export function percent(share: number): string {
  return `${Number((100 * share).toPrecision(3))} %`;
}

const [CURVE_WIDTH, CURVE_HEIGHT] = [1000, 60];

/** Values in order as an area from 0, at most 1,000 columns: the greatest, and where they are below 0 the least, of each. */
export function curveSvg(values: readonly number[]): string {
  const finite = values.map((value) => (Number.isFinite(value) ? value : 0));
  const [low, high] = [Math.min(0, least(finite)), Math.max(0, -least(finite.map((value) => -value)))];
  const y = (value: number): string => (CURVE_HEIGHT * (1 - (value - low) / (high - low || 1))).toFixed(1);
  const columns = Math.min(CURVE_WIDTH, finite.length);
  const shapes = Array.from({ length: columns }, (_, i) => {
    const own = finite.slice(
      Math.floor((i * finite.length) / columns),
      Math.floor(((i + 1) * finite.length) / columns),
    );
    const [x, width] = [(i * CURVE_WIDTH) / columns, CURVE_WIDTH / columns];
    const [top, bottom] = [Math.max(0, -least(own.map((value) => -value))), Math.min(0, least(own))];
    return `M${x.toFixed(1)} ${y(bottom)}V${y(top)}h${width.toFixed(2)}V${y(bottom)}Z`;
  });
  return `<svg viewBox="0 0 ${CURVE_WIDTH} ${CURVE_HEIGHT}" role="img"><path d="${shapes.join('')}"/></svg>`;
}

function least(values: readonly number[]): number {
  return values.reduce((low, value) => Math.min(low, value), Number.POSITIVE_INFINITY);
}

/** From blue over white to red; what is missing is grey. */
const COLOURS: readonly (readonly [number, number, number])[] = [
  [200, 200, 200],
  ...Array.from({ length: 255 }, (_, i): [number, number, number] => {
    const share = (i - 127) / 127;
    const fade = Math.round(255 * (1 - Math.abs(share)));
    return share < 0 ? [fade, fade, 255] : [255, fade, fade];
  }),
];

/** A square map, row-major `[side, side]`, NaN where missing, as a picture between its 1st and 99th percentile. */
export function mapImage(values: Float64Array, side: number): string {
  const ordered = values.filter(Number.isFinite).sort();
  const at = (share: number): number => ordered[Math.floor(share * (ordered.length - 1))] ?? 0;
  const most = Math.max(-at(0.01), at(0.99));
  const [low, high] = at(0.01) < 0 && at(0.99) > 0 ? [-most, most] : [at(0.01), at(0.99)]; // white is 0
  const rows = Buffer.alloc(side * (side + 1)); // each begins with 0: no filter
  for (let row = 0; row < side; row++) {
    for (let column = 0; column < side; column++) {
      const value = values[row * side + column]!;
      const share = Math.min(1, Math.max(0, (value - low) / (high - low || 1)));
      rows[row * (side + 1) + column + 1] = Number.isNaN(value) ? 0 : 1 + Math.round(254 * share);
    }
  }
  const shown = Math.max(side, Math.floor(600 / side) * side);
  return `<img width="${shown}" alt="" src="data:image/png;base64,${png(rows, side).toString('base64')}">
<p>blue ${low.toPrecision(3)} to red ${high.toPrecision(3)}; grey: nothing</p>`;
}

/** PNG of one byte a pixel, W3C PNG specification. */
function png(rows: Buffer, side: number): Buffer {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(side, 0);
  header.writeUInt32BE(side, 4);
  header.set([8, 3], 8); // bits, and a palette
  const chunk = (name: string, data: Buffer): Buffer => {
    const bytes = Buffer.alloc(data.length + 12);
    bytes.writeUInt32BE(data.length, 0);
    bytes.write(name, 4, 'latin1');
    data.copy(bytes, 8);
    bytes.writeUInt32BE(crc32(bytes.subarray(4, data.length + 8)), data.length + 8);
    return bytes;
  };
  return Buffer.concat([
    Buffer.from('89504e470d0a1a0a', 'hex'),
    chunk('IHDR', header),
    chunk('PLTE', Buffer.from(COLOURS.flat())),
    chunk('IDAT', deflateSync(rows)),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}
