"""The records of a ROS 1 bag (format 2.0) as bytes: what is where, with every length checked before it is believed.

A file is ``#ROSBAG V2.0`` and a line feed, a bag header record padded to 4 KiB, chunks each followed by its index records,
then connection and chunk info records. A record is ``u32 length, header, u32 length, data`` in little endian; a header is
fields of ``u32 length, name=value`` (http://wiki.ros.org/Bags/Format/2.0).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from ...pipeline.errors import FormatError

__all__ = [
    "BAG_HEADER",
    "CHUNK",
    "CHUNK_INFO",
    "CONNECTION",
    "HEAD_BYTES",
    "INDEX_DATA",
    "MAGIC",
    "MESSAGE",
    "Record",
    "number",
    "parse_fields",
    "parse_record",
    "stamp",
    "text",
]

MAGIC = b"#ROSBAG V2.0\n"
MESSAGE, BAG_HEADER, INDEX_DATA, CHUNK, CHUNK_INFO, CONNECTION = range(2, 8)

#: A record's header is looked for in this many bytes: connections hold their message definition in the data behind it.
HEAD_BYTES = 1 << 16

_SIZES = {1: "<B", 4: "<I", 8: "<Q"}


@dataclass(frozen=True, slots=True)
class Record:
    """A record: its header fields, where its data begins, how long that is, and where the next record begins."""

    fields: Mapping[str, bytes]
    data_at: int
    length: int
    end: int

    @property
    def op(self) -> int:
        """What kind of record it is; -1 if it does not say."""
        value = self.fields.get("op", b"")
        return value[0] if len(value) == 1 else -1


def parse_fields(header: bytes | memoryview) -> dict[str, bytes]:
    """The fields of a header. Raises FormatError where a length points past its end or a field has no name."""
    fields: dict[str, bytes] = {}
    pos = 0
    while pos < len(header):
        if len(header) - pos < 4:
            raise FormatError("a header ends inside a length")
        (length,) = struct.unpack_from("<I", header, pos)
        pos += 4
        if length > len(header) - pos:
            raise FormatError(f"a header field of {length} bytes goes past the end of its header")
        name, equals, value = bytes(header[pos : pos + length]).partition(b"=")
        if not equals:
            raise FormatError("a header field has no name")
        fields.setdefault(name.decode("latin-1"), value)
        pos += length
    return fields


def parse_record(data: bytes | memoryview, pos: int, end: int) -> Record:
    """The record at `pos`, whose data may go on to `end` of the file; `data` holds at least its header and length.

    Raises FormatError where a length points past `end`, or past `data` for the header.
    """
    if min(len(data), end) - pos < 8:
        raise FormatError("a record ends inside its first length")
    (length,) = struct.unpack_from("<I", data, pos)
    if length > min(len(data), end) - pos - 8:
        raise FormatError(f"a record header of {length} bytes goes past the end")
    at = pos + 4 + length
    fields = parse_fields(memoryview(data)[pos + 4 : at])
    (size,) = struct.unpack_from("<I", data, at)
    if size > end - at - 4:
        raise FormatError(f"a record of {size} bytes goes past the end")
    return Record(fields, at + 4, size, at + 4 + size)


def number(fields: Mapping[str, bytes], name: str, size: int) -> int:
    """A field that is an unsigned number of `size` bytes; raises FormatError if it is missing or of another size."""
    value = fields.get(name)
    if value is None or len(value) != size:
        raise FormatError(f"a record header has no field {name!r} of {size} bytes")
    return int(struct.unpack(_SIZES[size], value)[0])


def stamp(fields: Mapping[str, bytes], name: str) -> int:
    """A time field in ns."""
    value = number(fields, name, 8)
    return (value & 0xFFFFFFFF) * 10**9 + (value >> 32)


def text(fields: Mapping[str, bytes], name: str) -> str:
    """A text field; raises FormatError if it is missing."""
    if name not in fields:
        raise FormatError(f"a record header has no field {name!r}")
    return fields[name].decode("utf-8", "replace")
