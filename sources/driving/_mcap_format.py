"""The records of an MCAP file as bytes: what is where, with every length checked before it is believed.

A file is ``magic, Header, data section, DataEnd, summary section, Footer, magic``; a record is
``u8 opcode, u64 length, body`` in little endian (https://mcap.dev/spec).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from ...pipeline.errors import FormatError

__all__ = [
    "ATTACHMENT",
    "ATTACHMENT_INDEX",
    "CHANNEL",
    "CHUNK",
    "CHUNK_INDEX",
    "DATA_END",
    "FOOTER",
    "FOOTER_BYTES",
    "HEADER",
    "MAGIC",
    "MESSAGE",
    "MESSAGE_HEAD",
    "MESSAGE_INDEX",
    "METADATA",
    "METADATA_INDEX",
    "RECORD_HEAD",
    "SCHEMA",
    "STATISTICS",
    "SUMMARY_OFFSET",
    "Channel",
    "ChunkHead",
    "ChunkIndex",
    "Fields",
    "Footer",
    "MessageType",
    "Statistics",
    "records_in",
]

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX, CHUNK_INDEX = range(1, 9)
ATTACHMENT, ATTACHMENT_INDEX, STATISTICS, METADATA, METADATA_INDEX, SUMMARY_OFFSET, DATA_END = range(9, 16)

#: ``u8 opcode, u64 length`` in front of every record.
RECORD_HEAD = 9
#: ``u16 channel, u32 sequence, u64 log_time, u64 publish_time`` in front of a message's payload.
MESSAGE_HEAD = 22
#: A footer record with the trailing magic.
FOOTER_BYTES = RECORD_HEAD + 20 + len(MAGIC)

_U16, _U32, _U64 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")


class Fields:
    """Reads the fields of one record body in order; raises FormatError where a length points past the end."""

    __slots__ = ("data", "pos")

    def __init__(self, data: bytes | memoryview, pos: int = 0) -> None:
        self.data, self.pos = data, pos

    def _take(self, form: struct.Struct) -> int:
        if self.pos + form.size > len(self.data):
            raise FormatError(f"record ends inside a number at byte {self.pos} of its body")
        value: int = form.unpack_from(self.data, self.pos)[0]
        self.pos += form.size
        return value

    def u16(self) -> int:
        return self._take(_U16)

    def u32(self) -> int:
        return self._take(_U32)

    def u64(self) -> int:
        return self._take(_U64)

    def raw(self, length: int) -> bytes:
        if length > len(self.data) - self.pos:
            raise FormatError(f"a field of {length} bytes at byte {self.pos} of its record goes past the record's end")
        value = bytes(self.data[self.pos : self.pos + length])
        self.pos += length
        return value

    def text(self) -> str:
        return self.raw(self.u32()).decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class MessageType:
    """A Schema record: the name of a message type, its notation (``ros2msg``) and its definition."""

    id: int
    name: str
    encoding: str
    data: bytes

    @classmethod
    def parse(cls, body: bytes | memoryview) -> MessageType:
        f = Fields(body)
        return cls(f.u16(), f.text(), f.text(), f.raw(f.u32()))


@dataclass(frozen=True, slots=True)
class Channel:
    """A Channel record: a topic as one publisher writes it."""

    id: int
    type_id: int
    topic: str
    encoding: str
    metadata: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, body: bytes | memoryview) -> Channel:
        f = Fields(body)
        head = f.u16(), f.u16(), f.text(), f.text()
        metadata = []
        with suppress(FormatError):  # a channel is of use without
            end = f.u32() + f.pos
            while f.pos < end:
                metadata.append((f.text(), f.text()))
        return cls(*head, tuple(metadata))


@dataclass(frozen=True, slots=True)
class ChunkHead:
    """What stands in front of the compressed records of a chunk; `data_at` is where they begin in the body."""

    start_ns: int
    end_ns: int
    size: int
    crc: int
    compression: str
    stored: int
    data_at: int

    @classmethod
    def parse(cls, body: bytes | memoryview) -> ChunkHead:
        """From the first bytes of a chunk's body; `stored` is not checked against what follows."""
        f = Fields(body)
        return cls(f.u64(), f.u64(), f.u64(), f.u32(), f.text(), f.u64(), f.pos)


@dataclass(frozen=True, slots=True)
class ChunkIndex:
    """A ChunkIndex record of the summary: where a chunk is and where each channel's message index in it is."""

    offset: int
    length: int
    index_offsets: dict[int, int]
    index_length: int
    size: int
    times: tuple[int, int]

    @classmethod
    def parse(cls, body: bytes | memoryview) -> ChunkIndex:
        f = Fields(body)
        times = f.u64(), f.u64()
        offset, length = f.u64(), f.u64()
        pairs = Fields(f.raw(f.u32()))
        index_offsets = {}
        while pairs.pos < len(pairs.data):
            channel = pairs.u16()
            index_offsets[channel] = pairs.u64()
        index_length = f.u64()
        f.text(), f.u64()  # compression and compressed size, which the chunk repeats
        return cls(offset, length, index_offsets, index_length, f.u64(), times)


@dataclass(frozen=True, slots=True)
class Statistics:
    """A Statistics record of the summary."""

    messages: int
    chunks: int
    start_ns: int
    end_ns: int
    counts: dict[int, int]

    @classmethod
    def parse(cls, body: bytes | memoryview) -> Statistics:
        f = Fields(body)
        messages = f.u64()
        f.u16(), f.u32(), f.u32(), f.u32()  # schemas, channels, attachments, metadata
        chunks, start, end = f.u32(), f.u64(), f.u64()
        pairs = Fields(f.raw(f.u32()))
        counts = {}
        while pairs.pos < len(pairs.data):
            channel = pairs.u16()
            counts[channel] = pairs.u64()
        return cls(messages, chunks, start, end, counts)


@dataclass(frozen=True, slots=True)
class Footer:
    """The Footer record: where the summary begins (0: there is none) and its CRC (0: not computed)."""

    summary_start: int
    summary_crc: int

    @classmethod
    def parse(cls, body: bytes | memoryview) -> Footer:
        f = Fields(body)
        start = f.u64()
        f.u64()  # start of the summary offsets
        return cls(start, f.u32())


def records_in(data: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    """``(opcode, body)`` of the records that fill `data`; raises FormatError where one goes past the end."""
    view, pos = memoryview(data), 0
    while pos < len(view):
        if pos + RECORD_HEAD > len(view):
            raise FormatError(f"{len(view) - pos} bytes are left over behind the last record")
        length = _U64.unpack_from(view, pos + 1)[0]
        if length > len(view) - pos - RECORD_HEAD:
            raise FormatError(f"a record of {length} bytes at byte {pos} goes past the end")
        yield view[pos], view[pos + RECORD_HEAD : pos + RECORD_HEAD + length]
        pos += RECORD_HEAD + length
