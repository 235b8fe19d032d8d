/** What files for tests and measurements are written with. */
export * from './testing/bigwig.ts';
export { numbers } from './testing/numbers.ts';
export { writeTables } from './testing/tables.ts';
