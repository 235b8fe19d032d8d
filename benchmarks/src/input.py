"""A plain reader of TFRecord files, one thread: zlib, struct, a walk of the protobuf, numpy views. No CRC-32C is checked.

python3 input.py FILE... prints the records read, and wall and CPU seconds.
"""

import json
import struct
import sys
import time
import zlib

import numpy

BLOCK_BYTES = 65536


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def fields(data, at, end):
    """Fields of a message, all of which hold bytes: number, start, end."""
    while at < end:
        tag, at = varint(data, at)
        length, at = varint(data, at)
        yield tag >> 3, at, at + length
        at += length


def features(data):
    """Where the value of each feature of a tf.train.Example lies."""
    places = {}
    for _, a, b in fields(data, 0, len(data)):
        for _, c, d in fields(data, a, b):
            name = place = None
            for number, e, f in fields(data, c, d):
                if number == 1:
                    name = bytes(data[e:f]).decode()
                    continue
                for _, g, h in fields(data, e, f):
                    for _, start, end in fields(data, g, h):
                        place = start, end
            places[name] = place
    return places


def records(path):
    stream, held = zlib.decompressobj(), bytearray()
    with open(path, 'rb') as file:

        def hold(count):
            while len(held) < count:
                block = file.read(BLOCK_BYTES)
                if not block:
                    return False
                held.extend(stream.decompress(block))
            return True

        while hold(12):
            (length,) = struct.unpack_from('<Q', held)
            hold(16 + length)
            data = bytes(memoryview(held)[12 : 12 + length])
            del held[: 16 + length]
            places = features(data)
            start, end = places['sequence']
            sequence = numpy.frombuffer(data, numpy.uint8, end - start, start).reshape(-1, 4)
            start, end = places['target']
            yield sequence, numpy.frombuffer(data, '<f2', (end - start) // 2, start)


wall, cpu, count = time.perf_counter(), time.process_time(), 0
for path in sys.argv[1:]:
    for sequence, targets in records(path):
        count += 1
print(json.dumps({'records': count, 'wall': time.perf_counter() - wall, 'cpu': time.process_time() - cpu}))
