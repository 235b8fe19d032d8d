/** Curves as a picture: thin lines for single runs, a thick one for their mean, named at its end. */

export interface Curves {
  readonly title: string;
  readonly x: string;
  readonly y: string;
  readonly lines: readonly CurveGroup[];
}

/** Runs that differ in nothing but their seed. */
export interface CurveGroup {
  readonly name: string;
  readonly colour: string;
  /** Of each run: [x, y] at the same places x. */
  readonly runs: readonly (readonly (readonly [number, number])[])[];
}

const [WIDTH, HEIGHT] = [720, 400];
const FRAME = { left: 56, right: 200, top: 40, bottom: 48 };

/** The picture as SVG. y goes from 0 (or below, where a value is) to 1. */
export function curvesSvg({ title, x, y, lines }: Curves): string {
  const points = lines.flatMap(({ runs }) => runs.flat());
  const most = Math.max(...points.map(([at]) => at));
  const least = Math.min(0, ...points.map(([, value]) => value));
  const right = WIDTH - FRAME.right;
  const bottom = HEIGHT - FRAME.bottom;
  const place = ([at, value]: readonly [number, number]): string =>
    [
      FRAME.left + ((right - FRAME.left) * at) / most,
      bottom - ((bottom - FRAME.top) * (value - least)) / (1 - least),
    ]
      .map((coordinate) => coordinate.toFixed(1))
      .join(',');
  const text = (at: string, words: string, anchor: string, more = ''): string => {
    const [left, top] = at.split(',');
    return `<text x="${left}" y="${top}" text-anchor="${anchor}" ${more}>${words}</text>`;
  };
  const grid = [0, 0.2, 0.4, 0.6, 0.8, 1].map((value) => {
    const [from, to] = [place([0, value]), place([most, value])];
    const label = text(from, value.toFixed(1), 'end', 'dx="-6" dy="4"');
    return `<path d="M${from} L${to}" stroke="#ddd"/>${label}`;
  });
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) =>
    text(place([most * share, least]), String(Math.round(most * share)), 'middle', 'dy="18"'),
  );
  const drawn = lines.map(({ colour, runs }) => {
    const mean = meanOf(runs);
    const line = (run: CurveGroup['runs'][number], width: number, opacity: number): string =>
      `<polyline points="${run.map(place).join(' ')}" fill="none" stroke="${colour}" stroke-width="${width}" opacity="${opacity}"/>`;
    return [...runs.map((run) => line(run, 1, 0.4)), line(mean, 2.5, 1)].join('\n');
  });
  const ends = lines.map(({ runs }) => Number(place(meanOf(runs).at(-1)!).split(',')[1]));
  const labels = apart(ends).map((top, i) =>
    text(`${right},${top}`, lines[i]!.name, 'start', `dx="8" dy="4" fill="${lines[i]!.colour}"`),
  );
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12">`,
    '<rect width="100%" height="100%" fill="white"/>',
    text(`${FRAME.left},22`, title, 'start', 'font-size="14"'),
    ...grid,
    ...ticks,
    text(`${(FRAME.left + right) / 2},${HEIGHT - 10}`, x, 'middle'),
    `<text transform="translate(16 ${(FRAME.top + bottom) / 2}) rotate(-90)" text-anchor="middle">${y}</text>`,
    ...drawn,
    ...labels,
    '</svg>',
    '',
  ].join('\n');
}

const LINE_HEIGHT = 15;

/** Heights of labels, each a line below the one above it or more. */
function apart(tops: readonly number[]): readonly number[] {
  const moved = [...tops];
  const order = tops.map((_, i) => i).sort((a, b) => tops[a]! - tops[b]!);
  for (const [rank, i] of order.entries()) {
    const above = order[rank - 1];
    if (above !== undefined) moved[i] = Math.max(moved[i]!, moved[above]! + LINE_HEIGHT);
  }
  return moved;
}

/** The mean of the runs, as far as all of them go. */
function meanOf(runs: CurveGroup['runs']): CurveGroup['runs'][number] {
  const length = Math.min(...runs.map((run) => run.length));
  return runs[0]!.slice(0, length).map(([at], i) => {
    const total = runs.reduce((sum, run) => sum + run[i]![1], 0);
    return [at, total / runs.length] as const;
  });
}
