/** The kernel table that training reads unless it is given another: see `kernel-table.ts`. */
export const SHIPPED_TABLE: Readonly<Record<string, string>> = {};
