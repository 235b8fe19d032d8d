/** Compared plans as text for people. */
import {
  type Compared,
  type Costs,
  devicesText,
  makeSchedule,
  type Prediction,
  printSchedule,
  scheduleCosts,
  sequencesText,
} from '@cohesin/distributed';

export interface PlanReportOptions {
  readonly title: string;
  readonly devices: number;
  readonly batch: number;
  readonly parameters: number;
  readonly costs: Costs;
}

/** All plans in a table, and one of them in full. */
export function planReport(
  { oneDeviceMs, plans, refused }: Compared,
  shown: Prediction | undefined,
  options: PlanReportOptions,
): string {
  const { title, devices, batch, parameters, costs } = options;
  const efficiency = ({ stepMs }: Prediction): number => oneDeviceMs / devices / stepMs;
  const lines = [
    `${title}: ${(parameters / 1e6).toFixed(1)} M trained parameters, ${batch} sequences a step on ${devices} ${devices === 1 ? 'device' : 'devices'}`,
    `Simulated, not measured. Costs ${costs.name}; ${costs.device.memoryGb} GB a device.`,
    `One device would take ${time(oneDeviceMs)} a step; efficiency is that divided by devices and time.`,
    '',
    ...(plans.length === 0 ? [] : plansTable(plans, efficiency)),
    ...refused.map(({ name, reason }) => `refused: ${name}: ${reason}`),
  ];
  if (shown === undefined) return lines.join('\n');
  const which = shown === plans[0] ? 'The fastest, ' : '';
  return [
    ...lines,
    '',
    `${which}${shown.plan.name}:`,
    '',
    ...stagesTable(shown),
    '',
    ...timetable(shown, costs),
  ].join('\n');
}

function plansTable(plans: readonly Prediction[], efficiency: (plan: Prediction) => number): string[] {
  const rows = plans.map((prediction) => {
    const { plan, leaves, stages, stepMs, bytes } = prediction;
    const memory = Math.max(...stages.map(({ memory: { total } }) => total));
    const moved = bytes.meetings + bytes.borders + bytes.sums;
    return [
      plan.name,
      devicesText(plan),
      plan.stages.length === 1 ? '–' : plan.schedule + (plan.ahead > 0 ? `, ${plan.ahead} ahead` : ''),
      sequencesText(plan, leaves),
      time(stepMs),
      `${(100 * efficiency(prediction)).toFixed(0)} %`,
      gigabytes(memory),
      gigabytes(moved),
      boundBy(prediction, efficiency(prediction)),
    ];
  });
  return columns([
    ['plan', 'devices', 'schedule', 'sequences', 'step', 'efficiency', 'GB a device', 'GB moved', 'lost to'],
    ...rows,
  ]);
}

/** Where the rest of the devices' time goes, largest first. */
export function boundBy({ parts }: Prediction, efficiency: number): string {
  const losses: [string, number][] = [
    ['idle', parts.idle],
    ['meetings', parts.meetings],
    ['gradient sums', parts.sums],
    ['more work', parts.kernels + parts.update - efficiency], // of leaves, of what is computed again or on every device
  ];
  const shown = losses.filter(([, share]) => share >= 0.01).sort((a, b) => b[1] - a[1]);
  return shown.length === 0
    ? '–'
    : shown.map(([name, share]) => `${name} ${(100 * share).toFixed(0)} %`).join(', ');
}

function stagesTable({ stages, plan, leaves }: Prediction): string[] {
  const rows = stages.map(({ stage, parameters, memory, recompute, passMs, layers }, index) => [
    `${index}`,
    layers,
    `${stage.devices}`,
    (parameters / 1e6).toFixed(1),
    time((passMs.forward + passMs.inputGradient + passMs.weightGradient) / (plan.sideBySide ?? 1)),
    ...[memory.state, memory.activations, memory.borders, memory.working, memory.total].map(gigabytes),
    recompute.length === 0 ? '–' : `${recompute.length} blocks`,
  ]);
  const cut = leaves === 1 ? 'whole sequences' : `sequences in ${leaves} parts`;
  return [
    ...columns([
      [
        'stage',
        'layers',
        'devices',
        'M parameters',
        'a sequence',
        'GB state',
        'kept',
        'borders',
        'working',
        'all',
        'computed again',
      ],
      ...rows,
    ]),
    `${cut}; ${plan.microbatches} microbatches`,
  ];
}

const SHOWN = 6;

/** Who works when, of a step of few microbatches; a column is the shortest pass. */
function timetable({ plan, schedule, stages }: Prediction, costs: Costs): string[] {
  if (plan.stages.length === 1)
    return ['Every device works on its part from forward to update; there is no timetable.'];
  const microbatches = Math.min(plan.microbatches, Math.max(SHOWN, schedule.actions.length));
  const short = makeSchedule(plan.schedule, schedule.pipeline, microbatches, { ahead: plan.ahead });
  const column = Math.min(...stages.flatMap(({ passMs }) => Object.values(passMs)));
  return [
    `Timetable of ${microbatches} microbatches, a column is ${time(column)}:`,
    printSchedule(short, { costs: scheduleCosts(stages, short, costs), column }),
  ];
}

function columns(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  return rows.map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i]!))
      .join('  ')
      .trimEnd(),
  );
}

const gigabytes = (bytes: number): string => (bytes / 1e9).toFixed(1);

const time = (ms: number): string => (ms >= 10_000 ? `${(ms / 1000).toFixed(1)} s` : `${ms.toFixed(0)} ms`);
