"""What an MCAP file holds and where: its message types, channels, and the pieces that are read on their own.

The summary at the end of the file gives this for the price of a few small reads. It is used only if it is consistent
(magic, CRC, no overlaps, and message counts that agree with the message indexes); otherwise, and for a file that was cut,
`survey` walks the file from the front and unpacks every chunk once to count. That is slower but believes nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ...pipeline.errors import FormatError
from ._mcap_chunk import RecordFile
from ._mcap_format import (
    CHANNEL,
    CHUNK_INDEX,
    DATA_END,
    FOOTER,
    FOOTER_BYTES,
    HEADER,
    MAGIC,
    MESSAGE_INDEX,
    RECORD_HEAD,
    SCHEMA,
    STATISTICS,
    Channel,
    ChunkIndex,
    Fields,
    Footer,
    MessageType,
    Statistics,
    records_in,
)

__all__ = ["BROKEN", "CHUNKED", "LOOSE", "Catalog", "Piece", "check_magic", "indexed_count", "read_summary", "remains"]

#: Kinds of piece: one chunk; a run of records outside chunks; bytes that cannot be read.
CHUNKED, LOOSE, BROKEN = "chunk", "loose", "broken"

#: A summary larger than this is not read; no recorder writes one.
_SUMMARY_LIMIT = 1 << 30


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the file that is decoded on its own.

    `counts` are messages by channel, `indexes` where the message index of a channel is, for a chunk that was not
    counted. `size` is the uncompressed size if known, `times` the first and last log time where the summary has them.
    `error` says why a broken piece is broken.
    """

    kind: str
    offset: int
    length: int
    counts: Mapping[int, int] = field(default_factory=dict)
    indexes: Mapping[int, int] | None = None
    size: int | None = None
    error: str = ""
    times: tuple[int, int] | None = None

    @property
    def end(self) -> int:
        return self.offset + self.length


@dataclass(frozen=True)
class Catalog:
    """An MCAP file's table of contents. `complete` is False if it has no usable end; `problem` then says why."""

    path: str
    profile: str
    library: str
    types: Mapping[int, MessageType]
    channels: Mapping[int, Channel]
    pieces: tuple[Piece, ...]
    counts: Mapping[int, int]
    start_ns: int | None
    end_ns: int | None
    indexed: bool
    complete: bool = True
    problem: str = ""

    def topics(self) -> list[str]:
        """Topic names, sorted."""
        return sorted({channel.topic for channel in self.channels.values()})

    def channels_of(self, topic: str) -> list[Channel]:
        """The channels of a topic, by id: one for each publisher."""
        return [self.channels[i] for i in sorted(self.channels) if self.channels[i].topic == topic]

    def count(self, channels: Iterable[Channel]) -> int:
        """Messages of `channels` in the file."""
        return sum(self.counts.get(channel.id, 0) for channel in channels)


def check_magic(file: RecordFile) -> tuple[str, str, int]:
    """Profile, library and where the data section begins; raises FormatError if the file is not MCAP."""
    head = file.read(0, len(MAGIC) + RECORD_HEAD)
    if head[: len(MAGIC)] != MAGIC:
        found = f"begins with {head[: len(MAGIC)]!r}, not with {MAGIC!r}" if file.size else "is empty (0 bytes)"
        raise FormatError(f"{file.path}: not an MCAP file: it {found}")
    at = len(MAGIC) + RECORD_HEAD
    length = int.from_bytes(head[len(MAGIC) + 1 :], "little")
    if len(head) < at or head[len(MAGIC)] != HEADER or length > file.size - at or length > 1 << 20:
        return "", "", len(MAGIC)
    try:
        f = Fields(file.read(at, length))
        return f.text(), f.text(), at + length
    except FormatError:
        return "", "", len(MAGIC)


def read_summary(file: RecordFile) -> Catalog | None:
    """The catalog as the summary gives it, or None if there is none or it is not to be trusted."""
    profile, library, data_start = check_magic(file)
    try:
        body, end = _summary_bytes(file, data_start)
        types, channels, chunks, statistics = _parse_summary(body)
        pieces = _pieces(file, chunks, data_start, end)
    except FormatError:
        return None
    if statistics is None or statistics.chunks != len(pieces):
        return None
    if sum(statistics.counts.values()) != statistics.messages or not set(statistics.counts) <= set(channels):
        return None
    some = statistics.messages > 0
    if some and not pieces:
        return None
    return Catalog(
        path=file.path,
        profile=profile,
        library=library,
        types=types,
        channels=channels,
        pieces=tuple(pieces),
        counts=statistics.counts,
        start_ns=statistics.start_ns if some else None,
        end_ns=statistics.end_ns if some else None,
        indexed=True,
    )


def _summary_bytes(file: RecordFile, data_start: int) -> tuple[bytes, int]:
    tail = file.read(file.size - FOOTER_BYTES, FOOTER_BYTES) if file.size >= FOOTER_BYTES + data_start else b""
    if tail[-len(MAGIC) :] != MAGIC or tail[:RECORD_HEAD] != bytes([FOOTER]) + (20).to_bytes(8, "little"):
        raise FormatError("the file does not end with a footer")
    footer = Footer.parse(tail[RECORD_HEAD:])
    footer_at = file.size - FOOTER_BYTES
    start = footer.summary_start
    if not data_start <= start < footer_at or footer_at - start > _SUMMARY_LIMIT:
        raise FormatError("the file has no summary")
    body = file.read(start, footer_at - start)
    if footer.summary_crc and zlib.crc32(tail[: RECORD_HEAD + 16], zlib.crc32(body)) != footer.summary_crc:
        raise FormatError("the summary's CRC does not match")
    end = file.read(start - RECORD_HEAD - 4, RECORD_HEAD)
    if end != bytes([DATA_END]) + (4).to_bytes(8, "little"):
        raise FormatError("no DataEnd in front of the summary")
    return body, start


def _parse_summary(
    body: bytes,
) -> tuple[dict[int, MessageType], dict[int, Channel], list[ChunkIndex], Statistics | None]:
    types: dict[int, MessageType] = {}
    channels: dict[int, Channel] = {}
    chunks: list[ChunkIndex] = []
    statistics: Statistics | None = None
    for op, record in records_in(body):
        if op == SCHEMA:
            kind = MessageType.parse(record)
            types[kind.id] = kind
        elif op == CHANNEL:
            channel = Channel.parse(record)
            channels[channel.id] = channel
        elif op == CHUNK_INDEX:
            chunks.append(ChunkIndex.parse(record))
        elif op == STATISTICS:
            statistics = Statistics.parse(record)
    return types, channels, chunks, statistics


def _pieces(file: RecordFile, chunks: list[ChunkIndex], start: int, end: int) -> list[Piece]:
    """Chunks in file order with the counts that their message indexes give."""
    pieces = []
    for chunk in sorted(chunks, key=lambda c: c.offset):
        after = chunk.offset + chunk.length
        if chunk.offset < start or chunk.length < RECORD_HEAD or after + chunk.index_length > end:
            raise FormatError(f"the chunk index at byte {chunk.offset} points outside the data or into another chunk")
        for place in chunk.index_offsets.values():
            if not after <= place <= after + chunk.index_length - RECORD_HEAD - 6:
                raise FormatError(f"a message index of the chunk at byte {chunk.offset} is not behind the chunk")
        indexes = dict(chunk.index_offsets)
        pieces.append(Piece(CHUNKED, chunk.offset, chunk.length, indexes=indexes, size=chunk.size, times=chunk.times))
        start = after + chunk.index_length
    return pieces


def indexed_count(file: RecordFile, place: int, channel: int) -> int:
    """How many messages the message index at byte `place` lists for `channel`; raises FormatError if it is not one."""
    head = file.read(place, RECORD_HEAD + 6)
    if len(head) < RECORD_HEAD + 6 or head[0] != MESSAGE_INDEX:
        raise FormatError(f"no message index at byte {place}")
    length = int.from_bytes(head[1:RECORD_HEAD], "little")
    f = Fields(head, RECORD_HEAD)
    if f.u16() != channel:
        raise FormatError(f"the message index at byte {place} is of another channel")
    entries = f.u32()
    if entries % 16 or length < 6 + entries or length > file.size - place - RECORD_HEAD:
        raise FormatError(f"the message index at byte {place} has a wrong length")
    return entries // 16


def remains(file: RecordFile) -> tuple[list[int], Mapping[int, int]]:
    """Where chunks begin and how many messages each channel has, as far as the summary can be read."""
    try:
        _, _, data_start = check_magic(file)
        body, end = _summary_bytes(file, data_start)
        _, _, chunks, statistics = _parse_summary(body)
    except FormatError:
        return [], {}
    counts = statistics.counts if statistics else {}
    try:
        return [piece.offset for piece in _pieces(file, chunks, data_start, end)], counts
    except FormatError:
        return [], counts
