/** What we use of h5wasm; its own types bring Emscripten's globals (`FS`, `Module`, …) into every file. */
declare module 'h5wasm/node' {
  export interface Metadata {
    /** Of the HDF5 library: 1 is floating point. */
    readonly type: number;
    /** Bytes of an element. */
    readonly size: number;
    /** Of all elements. */
    readonly total_size: number;
    readonly littleEndian: boolean;
    readonly shape: readonly number[] | null;
    /** Absent where the values are stored in one piece. */
    readonly chunks: readonly number[] | null;
  }

  interface Attribute {
    readonly value: unknown;
  }

  export class Dataset {
    readonly path: string;
    readonly file_id: bigint;
    readonly metadata: Metadata;
    /** As `<f`, `<i`; what is no number type has another form. */
    readonly dtype: unknown;
    readonly value: unknown;
  }

  export class Group {
    readonly path: string;
    readonly attrs: Readonly<Record<string, Attribute>>;
    keys(): string[];
    get(name: string): unknown;
    create_group(name: string): Group;
    create_dataset(options: {
      name: string;
      data: unknown;
      shape: readonly number[];
      dtype: string;
      chunks?: readonly number[];
      compression?: 'gzip';
      compression_opts?: number;
    }): Dataset;
    create_attribute(name: string, value: string | readonly string[]): void;
  }

  export class File extends Group {
    constructor(path: string, mode: 'r' | 'w', options: { libver: ['earliest', 'latest'] });
    readonly file_id: bigint;
    flush(): void;
    close(): number;
  }

  export interface Hdf5 {
    readonly HEAPU8: Uint8Array;
    _malloc(bytes: number): number;
    _free(pointer: number): void;
    get_dataset_data(
      file: bigint,
      path: string,
      count: null,
      offset: null,
      strides: null,
      to: bigint,
    ): number;
    /** Lets the library's errors throw instead of being printed. */
    activate_throwing_error_handler(): number;
  }

  export const ready: Promise<Hdf5>;
}
