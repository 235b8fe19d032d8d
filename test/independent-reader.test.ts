/** What `prepare` writes, read by Python's own zlib and protobuf, and a framing of thirty lines. */
import { execFile, execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { decodeExample, PREPARE_DEFAULTS, planPrepare, readRecords, runPrepare } from '@cohesin/io';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeToy } from './toy-genome.ts';

const READER = `
import hashlib, json, struct, sys, zlib
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="t", syntax="proto3")
def message(name, *fields):
    added = file.message_type.add(name=name)
    for number, (field, kind, label, of) in enumerate(fields, 1):
        added.field.add(name=field, number=number, type=kind, label=label, type_name=of)
    return added
message("BytesList", ("value", 12, 3, None))
message("FloatList", ("value", 2, 3, None))
message("Int64List", ("value", 3, 3, None))
feature = message("Feature", *[(n, 11, 1, ".t." + m) for n, m in (("bytes", "BytesList"), ("floats", "FloatList"), ("ints", "Int64List"))])
features = message("Features", ("feature", 11, 3, ".t.Features.FeatureEntry"))
entry = features.nested_type.add(name="FeatureEntry")
entry.options.map_entry = True
entry.field.add(name="key", number=1, type=9, label=1)
entry.field.add(name="value", number=2, type=11, label=1, type_name=".t.Feature")
message("Example", ("features", 11, 1, ".t.Features"))
pool = descriptor_pool.DescriptorPool()
pool.Add(file)
described = pool.FindMessageTypeByName("t.Example")
Example = message_factory.GetMessageClass(described) if hasattr(message_factory, "GetMessageClass") else message_factory.MessageFactory(pool).GetPrototype(described)

table = []
for i in range(256):
    for _ in range(8):
        i = i >> 1 ^ (0x82f63b78 if i & 1 else 0)
    table.append(i)
def masked(data):
    crc = 0xffffffff
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xffffffff
    return ((crc >> 15 | crc << 17) + 0xa282ead8) & 0xffffffff

found = {}
for path in sys.argv[1:]:
    data, at, records = zlib.decompress(open(path, "rb").read()), 0, []
    while at < len(data):
        length, crc = struct.unpack_from("<QI", data, at)
        assert crc == masked(data[at:at + 8]), (path, at)
        body = data[at + 12:at + 12 + length]
        crc, = struct.unpack_from("<I", data, at + 12 + length)
        assert crc == masked(body), (path, at)
        at += 16 + length
        example = Example.FromString(body)
        records.append({"crc": crc, **{name: [hashlib.sha256(value).hexdigest() for value in feature.bytes.value] for name, feature in sorted(example.features.feature.items())}})
    assert at == len(data)
    found[path] = records
print(json.dumps(found))
`;

const python = ['python3', '/usr/bin/python3'].find((name) => {
  try {
    execFileSync(name, ['-c', 'import google.protobuf'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
});

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'independent-'));
  writeToy(folder);
});
afterAll(() => rm(folder, { recursive: true }));

describe(`an independent reader${python ? '' : ' (skipped: no python3 with google.protobuf)'}`, () => {
  it.runIf(python).each(['codes', 'one-hot'] as const)(
    'accepts every record, CRC for CRC: %s',
    async (sequence) => {
      const plan = await planPrepare({
        ...PREPARE_DEFAULTS,
        genome: join(folder, 'genome.fa'),
        tracks: ['a', 'b'].map((name) => ({
          ...{ file: join(folder, `${name}.bw`), identifier: name, description: name },
          ...{ statistic: 'mean', scale: 1 },
        })),
        split: { kind: 'chromosomes', valid: ['chrII'], test: ['chrIII'] },
        ...{
          sequenceLengthBp: 304,
          poolWidthBp: 16,
          strideTrainBp: 170,
          strideTestBp: 304,
          recordsPerShard: 7,
        },
        sequence,
      });
      await runPrepare(join(folder, sequence), plan);
      await plan.close();
      const records = join(folder, sequence, 'tfrecords');
      const paths = (await readdir(records)).sort().map((name) => join(records, name));
      const { stdout } = await promisify(execFile)(python!, ['-c', READER, ...paths]);
      const theirs = JSON.parse(stdout) as Record<string, { crc: number }[]>;
      const hash = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
      let count = 0;
      for (const path of paths) {
        const ours: object[] = [];
        for await (const { data } of readRecords(path)) {
          const features = [...decodeExample(data)].map(([name, feature]) => [
            name,
            feature.kind === 'bytes' ? feature.values.map(hash) : [],
          ]);
          ours.push(Object.fromEntries(features));
        }
        expect(theirs[path]!.map(({ crc: _, ...features }) => features)).toEqual(ours);
        expect(new Set(theirs[path]!.map(({ crc }) => crc)).size).toBe(ours.length);
        count += ours.length;
      }
      expect([paths.length, count]).toEqual([10, 63]);
    },
  );
});
