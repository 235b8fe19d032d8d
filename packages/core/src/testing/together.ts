/** Several ranks in one process, for tests of what they exchange. */
import { alone, type Exchange, type GatherPart } from '../exchange.ts';

/** Ranks that all work on every sequence. Who comes to a meeting waits for the others. */
export class Together {
  private readonly ranks: number;
  private readonly room: number;
  private waiting: { readonly value: unknown; readonly done: (all: readonly unknown[]) => void }[] = [];

  /** `room`: bytes that are gathered at a time. */
  constructor(ranks: number, room: number) {
    this.ranks = ranks;
    this.room = room;
  }

  /** Of one rank. */
  exchange(): Exchange {
    const exchange: Exchange = {
      ...alone,
      remote: true,
      room: this.room,
      round: () => exchange,
      combine: async (parts) => gathered(await this.meet(parts), parts),
      peaks: async (own) => {
        const all = await this.meet(own);
        return own.map((_, i) => Math.max(...all.map((peaks) => peaks[i]!)));
      },
      sum: async (device, range, submit) => {
        submit(Number.POSITIVE_INFINITY);
        const [own] = await device.read([range]);
        const all = await this.meet(new BigInt64Array(own!.buffer));
        const totals = all[0]!.map((_, i) => all.reduce((sum, values) => sum + values[i]!, 0n));
        device.write(range.buffer, range.offset ?? 0, new Uint8Array(totals.buffer));
      },
    };
    return exchange;
  }

  /** Is called when all have come, with what each brings; gives what they take away. */
  protected all(brought: readonly unknown[]): readonly unknown[] {
    return brought;
  }

  private meet<T>(value: T): Promise<readonly T[]> {
    return new Promise((resolve) => {
      this.waiting.push({ value, done: resolve as (all: readonly unknown[]) => void });
      if (this.waiting.length < this.ranks) return;
      const here = this.waiting;
      this.waiting = [];
      const all = this.all(here.map((one) => one.value));
      for (const { done } of here) done(all);
    });
  }
}

/** The bytes of `parts`, of what each rank gives. */
function gathered(
  all: readonly (readonly GatherPart[])[],
  parts: readonly GatherPart[],
): Uint8Array<ArrayBuffer>[] {
  const area = new Uint8Array(parts.reduce((total, { bytes }) => total + bytes, 0));
  for (const given of all) {
    let at = 0;
    for (const { own, offset, bytes } of given) {
      area.set(own, at + offset);
      at += bytes;
    }
  }
  let at = 0;
  return parts.map(({ bytes }) => {
    at += bytes;
    return area.slice(at - bytes, at);
  });
}
