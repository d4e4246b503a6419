"""How a piece of a container is taken apart: unpacked, and the messages of some channels found in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ...pipeline.memory import BufferPool
from ._mcap_chunk import Loaded, unpack
from ._mcap_kernels import count_messages, find_messages

__all__ = ["Found", "Framing", "McapFraming"]


@dataclass(frozen=True, slots=True)
class Found:
    """Messages in memory: payload offsets, lengths, log times; `gaps` are begin and end of bytes that are no records."""

    starts: Any
    lengths: Any
    log_times: Any
    gaps: Any


class Framing(Protocol):
    """What a container format knows about its pieces. Stateless."""

    @property
    def operation(self) -> str:
        """The format's name in quarantine: ``mcap`` gives ``mcap.read`` and ``mcap.decode``."""
        ...

    def unpack(self, chunk: Loaded, limit: int, pool: BufferPool, size: int | None) -> tuple[Loaded, str]:
        """The records in a chunk, and what is wrong behind it (nothing: empty). Raises FormatError."""
        ...

    def find(self, data: Any, channels: Sequence[int]) -> Found:
        """The messages of `channels` among the records `data`."""
        ...


class McapFraming:
    """MCAP's records."""

    operation = "mcap"

    def unpack(self, chunk: Loaded, limit: int, pool: BufferPool, size: int | None) -> tuple[Loaded, str]:
        return unpack(chunk, limit, pool, size), ""

    def find(self, data: Any, channels: Sequence[int]) -> Found:
        wanted = np.zeros(1 << 16, np.uint8)
        wanted[list(channels)] = 1
        count, end = count_messages(data, len(data), wanted)
        starts, lengths, log_times = np.empty((3, count), np.int64)
        find_messages(data, end, wanted, starts, lengths, log_times)
        gaps = np.array([[end, len(data)]] if end < len(data) else [], np.int64).reshape(-1, 2)
        return Found(starts, lengths, log_times, gaps)
