/** What a check of a fixture found: errors beside their gates, what is missing, and all of it as text. */

/** One tensor against its reference. */
export interface Measurement {
  /** The quantity it belongs to: `grads`, `loss_curve_adam`, `conv1d outputs`. */
  readonly group: string;
  readonly tensor: string;
  /** Infinite when a value is not finite, is missing or could not be computed. */
  readonly error: number;
  readonly gate: number;
  /** Why there is no number. */
  readonly note?: string;
}

/** All that was found about one file. */
export interface FixtureReport {
  readonly file: string;
  readonly format: 'ops' | 'model';
  readonly measurements: readonly Measurement[];
  /** Cases that were checked: the ops with code, or the model. */
  readonly supported: readonly string[];
  /** Cases without code to check; each counts as a miss. */
  readonly notSupported: readonly string[];
  /** Quantities left out on purpose, with the reason. */
  readonly notChecked: readonly string[];
  readonly dispatches: number;
}

/** Measurements beyond their gates. */
export function misses({ measurements }: FixtureReport): readonly Measurement[] {
  return measurements.filter(({ error, gate }) => !(error <= gate));
}

/** Misses and cases that are not supported: what makes a run fail. */
export function missCount(report: FixtureReport): number {
  return misses(report).length + report.notSupported.length;
}

/** The report as lines: one a group with its worst error, then what is missing, then a table of misses. */
export function reportText(report: FixtureReport): string {
  const groups = new Map<string, Measurement[]>();
  for (const measured of report.measurements)
    groups.set(measured.group, [...(groups.get(measured.group) ?? []), measured]);
  const table = misses(report).map(({ group, tensor, error, gate, note }) => [
    `  MISS ${group}`,
    `${shown(error)} > ${shown(gate)}`,
    note === undefined ? tensor : `${tensor}: ${note}`,
  ]);
  return [
    `${report.file}: ${report.supported.length} checked, ${report.dispatches} dispatches`,
    ...aligned([...groups].map(([group, members]) => groupLine(group, members))),
    ...report.notSupported.map((name) => `  not supported: ${name}`),
    ...report.notChecked.map((what) => `  not checked: ${what}`),
    ...aligned(table),
    summaryLine(report),
  ].join('\n');
}

/** One line for a table over several files. */
export function summaryLine(report: FixtureReport): string {
  const { file, measurements, supported, notSupported } = report;
  const counts = [
    `${supported.length} checked`,
    `${notSupported.length} not supported`,
    `${measurements.length} tensors`,
    `${misses(report).length} misses`,
  ];
  return `${missCount(report) === 0 ? 'ok  ' : 'MISS'} ${file}: ${counts.join(', ')}`;
}

function groupLine(group: string, members: readonly Measurement[]): string[] {
  const ratio = ({ error, gate }: Measurement): number => (error === 0 ? 0 : error / gate);
  const worst = members.reduce((a, b) => (ratio(b) > ratio(a) ? b : a));
  const gates = new Set(members.map(({ gate }) => gate));
  const gate = `gate ${shown(worst.gate)}${gates.size > 1 ? ' (several)' : ''}`;
  return [`  ${group}`, shown(worst.error), gate, `${members.length} tensors`, `worst ${worst.tensor}`];
}

const shown = (value: number): string => (value === 0 ? '0' : value.toExponential(2));

/** Rows with their cells padded to columns. */
function aligned(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column]!))
      .join('  ')
      .trimEnd(),
  );
}
