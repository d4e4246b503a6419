"""Messages of a topic out of one piece of a file after the other, decoded together where there are few in each.

A block of columns costs as much as decoding some hundred messages, so those of a topic that has a dozen in each chunk are
copied behind one another and decoded at once. Pieces with many bytes of the topic (pictures) are decoded where they lie.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.source import Decoded
from ._cdr_image_kernels import ends, gather
from ._mcap_chunk import Loaded
from .cdr import MessageDecoder

__all__ = ["MessageRun", "Part"]

#: Bytes of messages of one piece that are copied, and of all that are decoded together.
_FEW, _TOGETHER = 1 << 18, 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """The messages found in a piece in memory; the first `told` are numbered from `first_seq`, `place` names an offset."""

    memory: Loaded
    starts: Any
    lengths: Any
    log_times: Any
    told: int
    first_seq: int
    place: Callable[[int], str]

    def message(self, i: int, operation: str, error: str, seq: int | None) -> BadRecord:
        """Message `i` put aside."""
        start = int(self.starts[i])
        payload = self.memory.data[start : start + int(self.lengths[i])].tobytes()
        return BadRecord(self.place(start), operation, error, payload, seq)


class MessageRun:
    """Collects pieces in order, and decodes what was collected when it is enough, or when `seq` does not go on."""

    def __init__(self, decoder: MessageDecoder, operation: str, context: Context) -> None:
        self._decoder, self._operation, self._context = decoder, f"{operation}.decode", context
        self._parts: list[tuple[int, Part]] = []
        self._bytes = self._next_seq = 0
        self._batches: list[pa.RecordBatch] = []
        #: Bad records of each piece: those of its messages, then what else was told of it.
        self._bad: list[tuple[list[BadRecord], list[BadRecord]]] = []
        self._dropped = 0

    def add(self, part: Part) -> None:
        """The next piece; what is told after it is about it."""
        size = int(part.lengths[: part.told].sum())
        if self._parts and (size > _FEW or self._bytes + size > _TOGETHER or part.first_seq != self._next_seq):
            self._decode()
        self._parts.append((len(self._bad), part))
        self._bad.append(([], []))
        self._bytes, self._next_seq = self._bytes + size, part.first_seq + part.told
        if size > _FEW:
            self._decode()

    def tell(self, bad: Sequence[BadRecord]) -> None:
        """What is wrong with the piece that was added last, or with one that has no messages."""
        if not self._bad:
            self._bad.append(([], []))
        self._bad[-1][1].extend(bad)

    def drop(self, records: int) -> None:
        """Count records that are lost with a bad one: it stands for all, and rows, bad and dropped add up."""
        self._dropped += records

    def end(self) -> Decoded:
        """All that was made of the pieces."""
        self._decode()
        bad = [record for messages, others in self._bad for record in (*messages, *others)]
        dropped = {"in a damaged part of the file": self._dropped} if self._dropped else {}
        return Decoded(self._batches, bad, dropped)

    def _decode(self) -> None:
        parts, self._parts, self._bytes = self._parts, [], 0
        parts = [entry for entry in parts if entry[1].told] if len(parts) > 1 else parts
        if not parts:
            return
        first = parts[0][1]
        whole = _together([part for _, part in parts], self._context) if len(parts) > 1 else first
        decoded = self._decoder(
            whole.memory.data,
            whole.starts[: whole.told],
            whole.lengths[: whole.told],
            whole.log_times[: whole.told],
            first.first_seq,
            self._context.pool,
        )
        if decoded.copied:
            self._context.copied(decoded.copied)
        if decoded.batch.num_rows:
            self._batches.append(decoded.batch)
        if decoded.bad:
            begins = [part.first_seq - first.first_seq for _, part in parts]
            for i, error in decoded.bad:
                which = bisect_right(begins, i) - 1
                index, part = parts[which]
                told = part.message(i - begins[which], self._operation, error, first.first_seq + i)
                self._bad[index][0].append(told)


def _together(parts: Sequence[Part], context: Context) -> Part:
    """The numbered messages of all, one behind the other in memory of their own."""
    lengths = np.concatenate([part.lengths[: part.told] for part in parts])
    log_times = np.concatenate([part.log_times[: part.told] for part in parts])
    offsets = np.empty(len(lengths) + 1, np.int64)
    total = int(ends(lengths, offsets))
    lease = context.pool.take(total)
    memory, at = Loaded(lease.array(np.uint8, total), lease), 0
    for part in parts:
        to = offsets[at : at + part.told + 1]
        gather(part.memory.data, part.starts[: part.told], part.lengths[: part.told], to, memory.data)
        at += part.told
    context.copied(total)
    return Part(memory, offsets, lengths, log_times, at, parts[0].first_seq, parts[0].place)
