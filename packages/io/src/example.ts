import type { FeatureMessage } from './proto/messages.ts';
import { Example as ExampleCodec } from './proto/tensorflow.ts';

/** One value of a `tf.train.Example`. */
export type Feature =
  | { readonly kind: 'bytes'; readonly values: readonly Uint8Array[] }
  | { readonly kind: 'float'; readonly values: Float32Array }
  | { readonly kind: 'int64'; readonly values: readonly bigint[] }
  | { readonly kind: 'none' };

/** A `tf.train.Example`: features by name. */
export type Example = ReadonlyMap<string, Feature>;

/**
 * The features of a serialized `tf.train.Example`. Byte values are views of `bytes`.
 *
 * @throws when `bytes` is no such message
 */
export function decodeExample(bytes: Uint8Array): Map<string, Feature> {
  const features = ExampleCodec.decode(bytes).features?.feature ?? {};
  return new Map(Object.entries(features).map(([name, message]) => [name, toFeature(message)]));
}

/** A serialized `tf.train.Example`, features in the given order. */
export function encodeExample(features: Iterable<readonly [string, Feature]>): Uint8Array {
  const feature: Record<string, FeatureMessage> = {};
  for (const [name, value] of features) feature[name] = toMessage(value);
  return ExampleCodec.encode({ features: { feature } }).finish();
}

function toFeature({ bytesList, floatList, int64List }: FeatureMessage): Feature {
  if (bytesList) return { kind: 'bytes', values: bytesList.value };
  if (floatList) return { kind: 'float', values: Float32Array.from(floatList.value) };
  if (int64List) return { kind: 'int64', values: int64List.value.map((value) => BigInt(value.toString())) };
  return { kind: 'none' };
}

function toMessage(feature: Feature): FeatureMessage {
  switch (feature.kind) {
    case 'bytes':
      return { bytesList: { value: feature.values } };
    case 'float':
      return { floatList: { value: feature.values } };
    case 'int64':
      return { int64List: { value: feature.values.map(String) } };
    case 'none':
      return {};
  }
}
