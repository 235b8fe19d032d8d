import { akita, type BuiltModel } from '@cohesin/models';

/** Dropout, clipping and training as published. A map of 32 bins of 4 bp, of which 24 are kept: the outer two of 8 parts have none. */
export const smallAkita = (): BuiltModel =>
  akita({
    lengthBp: 128,
    filters: 6,
    towerRepeats: 1,
    residualFilters: 3,
    residualRepeats: 1,
    binFilters: 5,
    mapFilters: 6,
    mapResidualFilters: 3,
    mapResidualRepeats: 2,
    cropBins: 4,
    targets: 3,
  });
