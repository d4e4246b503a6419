"""The messages of an MCAP file as they were recorded: arrays of times, channels and places, a block for each chunk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...pipeline.errors import FormatError
from ...pipeline.memory import BufferPool, Lease
from ._mcap_catalog import BROKEN, CHUNKED, Catalog
from ._mcap_chunk import RecordFile, unpack
from ._mcap_format import Channel
from ._mcap_kernels import every_message, message_count

__all__ = ["MessageBlock", "raw_blocks"]


@dataclass(frozen=True, slots=True)
class MessageBlock:
    """The messages of one piece of a file, in file order.

    `log_time` and `publish_time` (int64 ns), `channel` (uint16, a key of `channels`), `offset` and `length` (int64) of the
    payload in `data` (uint8: the unpacked records). `place` is the byte of the piece in the file. `error` says what is
    wrong with the piece, if anything; the messages in front of the damage are there. The memory is reused once the block
    is collected: keep the block, not its `data`.
    """

    log_time: Any
    publish_time: Any
    channel: Any
    offset: Any
    length: Any
    data: Any
    place: int
    channels: Mapping[int, Channel]
    error: str
    lease: Lease | None

    def __len__(self) -> int:
        return len(self.channel)

    def payload(self, i: int) -> bytes:
        """A copy of the payload of message `i`."""
        return bytes(self.data[self.offset[i] : self.offset[i] + self.length[i]])

    def each(self) -> Iterator[tuple[Channel | None, int, bytes]]:
        """Channel (None: the file does not describe it), log time and a copy of the payload of each message.

        For tools that want an object for each; the arrays are several times faster.
        """
        data, channels = self.data.tobytes(), self.channels
        places = zip(self.offset.tolist(), self.length.tolist(), strict=True)
        for channel, time, (at, size) in zip(self.channel.tolist(), self.log_time.tolist(), places, strict=True):
            yield channels.get(channel), time, data[at : at + size]


def raw_blocks(catalog: Catalog, limit: int) -> Iterator[MessageBlock]:
    """The blocks of a file, in file order."""
    pool = BufferPool(keep=4 * limit)
    with RecordFile(catalog.path) as file:
        for piece in catalog.pieces:
            error = piece.error
            records = None
            if piece.kind != BROKEN:
                try:
                    records = file.load(piece.offset, piece.length, pool)
                    if piece.kind == CHUNKED:
                        records = unpack(records, limit, pool, piece.size)
                except FormatError as failure:
                    records, error = None, str(failure)
            data = records.data if records is not None else np.empty(0, np.uint8)
            count, end = message_count(data, len(data))
            if end < len(data):
                error = error or f"its records break off at byte {end} of {len(data)}"
            times, places = np.empty((2, count), np.int64), np.empty((2, count), np.int64)
            channel = np.empty(count, np.uint16)
            every_message(data, end, channel, times[0], times[1], places[0], places[1])
            lease = records.lease if records is not None else None
            yield MessageBlock(
                times[0],
                times[1],
                channel,
                places[0],
                places[1],
                data,
                piece.offset,
                catalog.channels,
                error,
                lease,
            )
