/** Types of the messages in `tensorflow.proto`, as the generated code reads and writes them. */

/** A 64-bit integer: a `Long` when decoded; numbers and decimal strings are accepted when encoding. */
export type Int64 = number | string | { toString(): string };

/** One value of a `tf.train.Example`: at most one of the lists is present. */
export interface FeatureMessage {
  readonly bytesList?: { readonly value: readonly Uint8Array[] } | null;
  readonly floatList?: { readonly value: ArrayLike<number> } | null;
  readonly int64List?: { readonly value: readonly Int64[] } | null;
}

/** `tf.train.Example`. */
export interface ExampleMessage {
  readonly features?: { readonly feature: Readonly<Record<string, FeatureMessage>> } | null;
}

/** One tagged value of an event. */
export interface SummaryValueMessage {
  readonly tag: string;
  readonly simpleValue?: number | null;
  readonly metadata?: { readonly pluginData: { readonly pluginName: string } } | null;
  readonly tensor?: {
    readonly dtype: number;
    readonly tensorShape: { readonly dim: readonly { readonly size: Int64 }[] };
    readonly stringVal: readonly Uint8Array[];
  } | null;
}

/** One entry of a TensorBoard event file; `wallTime` in seconds since 1970. */
export interface EventMessage {
  readonly wallTime: number;
  readonly step?: Int64;
  readonly fileVersion?: string | null;
  readonly summary?: { readonly value: readonly SummaryValueMessage[] } | null;
}

/** What stands under the empty key of a checkpoint's index. */
export interface BundleHeaderMessage {
  readonly numShards: number;
  /** 0: little. */
  readonly endianness?: number;
  readonly version?: { readonly producer: number; readonly minConsumer?: number } | null;
}

/** Where one tensor of a checkpoint lies. */
export interface BundleEntryMessage {
  readonly dtype: number;
  readonly shape?: { readonly dim: readonly { readonly size: Int64 }[] } | null;
  readonly shardId?: number;
  readonly offset?: Int64;
  readonly size: Int64;
  /** Masked CRC-32C of the bytes. */
  readonly crc32c: number;
  readonly slices?: readonly unknown[];
}

/** What the generated code offers per message type. `decode` throws on bytes that are not protobuf. */
export interface Codec<Message> {
  encode(message: Message): { finish(): Uint8Array };
  decode(bytes: Uint8Array): Message;
}
