/** What we use of hic-straw, which has no types of its own. */
declare module 'hic-straw/dist/hic-straw.esm.js' {
  export interface HicBytes {
    read(position: number, length: number): Promise<ArrayBuffer>;
  }

  /** Half-open, in bp. */
  export interface Region {
    readonly chr: string;
    readonly start: number;
    readonly end: number;
  }

  /** Bins are counted from the start of the chromosome. */
  export interface ContactRecord {
    readonly bin1: number;
    readonly bin2: number;
    readonly counts: number;
  }

  interface ZoomData {
    readonly blockIndex: {
      getBlockIndexEntry(
        block: number,
      ): Promise<{ readonly filePosition: number; readonly size: number } | undefined>;
    };
    getBlockNumbers(rows: Region, columns: Region, version: number): readonly number[];
  }

  export class HicFile {
    readonly version: number;
    readonly genomeId: string;
    readonly chromosomes: readonly {
      readonly index: number;
      readonly name: string;
      readonly size: number;
    }[];
    readonly bpResolutions: readonly number[];
    /** By `{index}_{index}` of two chromosomes. */
    readonly masterIndex: Readonly<Record<string, unknown>>;
    readonly normVectorIndexPosition: number;
    readonly normVectorIndexSize: number;
    readonly normExpectedValueVectorsPosition: number | undefined;
    /** By `{type}_{chromosome's index}_{unit}_{bp}`; absent before it was read. */
    readonly normVectorIndex?: Readonly<Record<string, unknown>>;
    /** `NONE` and those of the index. */
    readonly normalizationTypes: readonly string[];
    init(): Promise<void>;
    readNormVectorIndex(range: { readonly start: number; readonly size: number }): Promise<unknown>;
    readNormExpectedValuesAndNormVectorIndex(): Promise<void>;
    getMatrix(
      row: number,
      column: number,
    ): Promise<{ getZoomData(binBp: number, unit: 'BP'): ZoomData | undefined } | undefined>;
    getContactRecords(
      normalization: 'NONE',
      rows: Region,
      columns: Region,
      unit: 'BP',
      binBp: number,
    ): Promise<readonly ContactRecord[]>;
    getNormalizationVector(
      type: string,
      chromosome: number,
      unit: 'BP',
      binBp: number,
    ): Promise<{
      readonly nValues: number;
      getValues(start: number, end: number): Promise<readonly number[]>;
    }>;
  }

  export default class Straw {
    readonly hicFile: HicFile;
    constructor(config: { readonly file: HicBytes });
  }
}
