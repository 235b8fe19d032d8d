/** What a traced tensor is for: forward, input gradient, weight gradient or update. A phase is a fusion barrier. */
export type Phase = 'F' | 'I' | 'W' | 'U';

/** `mixed`: products of f16 with sums in f32; weights, statistics and losses stay f32. */
export type Precision = 'f32' | 'mixed';

interface Scope {
  readonly path: string;
  readonly phase: Phase;
  readonly training: boolean;
  readonly precision: Precision;
}

let current: Scope = { path: '', phase: 'F', training: false, precision: 'f32' };

/** The layer path, phase and mode that new tensors are recorded under. */
export function currentScope(): Scope {
  return current;
}

/** Runs `body` with parts of the scope replaced. */
export function withScope<T>(change: Partial<Scope>, body: () => T): T {
  const outer = current;
  current = { ...outer, ...change };
  try {
    return body();
  } finally {
    current = outer;
  }
}

/** Runs `body` one layer deeper, and puts the layer path in front of any error. */
export function withLayer<T>(name: string, body: () => T): T {
  const outer = current.path;
  const path = outer === '' ? name : name === '' ? outer : `${outer}.${name}`;
  try {
    return withScope({ path }, body);
  } catch (error) {
    throw error instanceof Error ? named(error, path) : error;
  }
}

function named(error: Error, path: string): Error {
  if (path === '' || /^in [\w.]+: /.test(error.message)) return error;
  return new Error(`in ${path}: ${error.message}`, { cause: error });
}
