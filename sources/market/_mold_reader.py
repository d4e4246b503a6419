"""An open capture of MoldUDP64: ITCH messages in sequence, decoded as those of a file are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ...pipeline.columns import as_numpy
from ...pipeline.context import BadRecord
from ...pipeline.source import Block, Decoded, SourceReader
from ..storage.feed import Feed
from ._itch_messages import Directory, ItchMessages, Part
from ._itch_tables import TABLES
from ._mold_capture import Delivery, FeedCapture, Stretch

__all__ = ["BEHIND_GAP", "DeliveredItch", "Framed", "MoldItchReader"]

#: What `flags` of the first row behind a gap holds.
BEHIND_GAP = 4


@dataclass(frozen=True, slots=True)
class Framed:
    """What a delivery holds: parts to decode, each with its decoder, and whether its first row is behind a gap."""

    parts: tuple[tuple[ItchMessages, Part, bool], ...]
    bad: tuple[BadRecord, ...]
    dropped: dict[str, int]


class DeliveredItch:
    """ITCH messages of deliveries to one table: `frame` in order, `decode` anywhere. `messages` makes a decoder."""

    def __init__(self, table: str, messages: Callable[[], ItchMessages]) -> None:
        self._messages = messages
        self._by_session: dict[int, ItchMessages] = {}
        self._wanted = np.zeros(256, np.bool_)
        self._wanted[[ord(letter) for letter in TABLES[table]]] = True
        self._marked: set[int] = set()

    def frame(self, delivery: Delivery) -> Framed:
        """The parts of a delivery."""
        parts: list[tuple[ItchMessages, Part, bool]] = []
        for stretch in delivery.stretches:
            parts += self._take(stretch)
        return Framed(tuple(parts), tuple(delivery.bad), delivery.dropped)

    def _take(self, stretch: Stretch) -> Iterator[tuple[ItchMessages, Part, bool]]:
        session = stretch.session
        messages = self._by_session.get(session)
        if messages is None:
            messages = self._by_session[session] = self._messages()
        if stretch.behind_gap:
            self._marked.add(session)
        first = 0
        kinds = stretch.data[stretch.offsets] if self._marked else None
        for part in messages.take(
            stretch.data,
            stretch.offsets,
            stretch.sizes,
            len(stretch.offsets),
            first_seq=stretch.position,
            place=stretch.place,
            ts_recv=stretch.received,
            keep=stretch.keep,
        ):
            mark = False
            if session in self._marked and kinds is not None:
                mark = bool(self._wanted[kinds[first : first + part.count]].any())
                if mark:
                    self._marked.discard(session)
            first += part.count
            yield messages, part, mark

    @property
    def directories(self) -> list[Directory]:
        """The symbols of each session met so far."""
        return [messages.directory for messages in self._by_session.values()]

    def decode(self, framed: Framed) -> Decoded:
        """Rows, bad records and drops. Pure and thread-safe."""
        batches: list[pa.RecordBatch] = []
        bad, dropped = list(framed.bad), dict(framed.dropped)
        for messages, part, mark in framed.parts:
            decoded = messages.decode(part)
            made = list(decoded.batches)
            if mark and made:
                made[0] = _behind_gap(made[0])
            batches += made
            bad += decoded.bad
            for why, count in decoded.dropped.items():
                dropped[why] = dropped.get(why, 0) + count
        return Decoded(batches, bad, dropped)


class MoldItchReader(SourceReader):
    """Blocks are what a piece of the capture delivered. `skip` blocks are gone through without being given out: symbols
    and what waits for a gap are found again by reading from the beginning."""

    def __init__(self, feed: Feed, capture: FeedCapture, delivered: DeliveredItch, *, skip: int) -> None:
        self._feed, self._capture, self._delivered, self._skip = feed, capture, delivered, skip

    def blocks(self) -> Iterator[Block]:
        for index, delivery in enumerate(self._capture.deliveries()):
            framed = self._delivered.frame(delivery)
            if index >= self._skip:
                size = max(1, delivery.nbytes)
                records = delivery.end - delivery.first
                yield Block(index, delivery.first, records, size, {"blocks": index + 1}, framed)

    def decode(self, block: Block) -> Decoded:
        return self._delivered.decode(block.payload)

    def close(self) -> None:
        self._feed.close()


def _behind_gap(batch: pa.RecordBatch) -> pa.RecordBatch:
    at = batch.schema.get_field_index("flags")
    if at < 0:
        return batch
    flags: Any = as_numpy(batch.column(at)).copy()
    flags[0] |= BEHIND_GAP
    return batch.set_column(at, batch.schema.field(at), pa.array(flags))
