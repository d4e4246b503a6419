"""An open capture of MoldUDP64: ITCH messages in sequence, decoded as those of a file are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
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
class _Taken:
    """Messages of one session that lie in one buffer. `positions` of messages 0, 1, ... of the group that the part belongs
    to are their numbers in the source (None: they are those of the part); rows at or behind `marks` are behind gaps."""

    messages: ItchMessages
    part: Part
    positions: npt.NDArray[np.int64] | None
    marks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Framed:
    """What a delivery holds: parts to decode, and whether their rows are to be put in order (of several sessions)."""

    parts: tuple[_Taken, ...]
    mixed: bool
    bad: tuple[BadRecord, ...]
    dropped: dict[str, int]


class DeliveredItch:
    """ITCH messages of deliveries to one table: `frame` in order, `decode` anywhere; `messages` makes a decoder
    for a session that begins with a stretch."""

    def __init__(self, table: str, messages: Callable[[Stretch], ItchMessages]) -> None:
        self._messages = messages
        self._by_session: dict[int, ItchMessages] = {}
        self._wanted = np.zeros(256, np.bool_)
        self._wanted[[ord(letter) for letter in TABLES[table]]] = True
        self._marked: set[int] = set()

    @property
    def directories(self) -> list[Directory]:
        """The symbols met so far, session by session."""
        return [messages.directory for messages in self._by_session.values()]

    def frame(self, delivery: Delivery) -> Framed:
        """The parts of a delivery."""
        groups: list[list[Stretch]] = []
        latest: dict[int, list[Stretch]] = {}
        for stretch in delivery.stretches:
            group = latest.get(stretch.session)
            if group is None or group[0].data is not stretch.data:
                group = latest[stretch.session] = []
                groups.append(group)
            group.append(stretch)
        parts = [part for group in groups for part in self._take(group)]
        mixed = len(latest) > 1
        return Framed(tuple(parts), mixed, tuple(delivery.bad), delivery.dropped)

    def _take(self, group: list[Stretch]) -> Iterator[_Taken]:
        """Parts of the stretches of one session in one buffer, in one go however many there are."""
        head = group[0]
        messages = self._by_session.get(head.session)
        if messages is None:
            messages = self._by_session[head.session] = self._messages(head)
        marks = self._marks(group)
        whole = len(group) == 1
        offsets, sizes, received = head.offsets, head.sizes, head.received
        positions: npt.NDArray[np.int64] | None = None
        place, keep = head.place, head.keep
        if not whole:
            offsets = np.concatenate([stretch.offsets for stretch in group])
            sizes = np.concatenate([stretch.sizes for stretch in group])
            received = np.concatenate([stretch.received for stretch in group])
            positions = np.concatenate([np.arange(len(s.offsets)) + s.position for s in group])
            place, keep = _places(group), tuple(item for stretch in group for item in stretch.keep)
        first = head.position if whole else 0
        for part in messages.take(
            head.data, offsets, sizes, len(offsets), first_seq=first, place=place, ts_recv=received, keep=keep
        ):
            low, high = part.first_seq, part.first_seq + part.count
            inside = tuple(where for index, where in marks if low <= index + first < high)
            yield _Taken(messages, part, positions, inside)

    def _marks(self, group: list[Stretch]) -> list[tuple[int, int]]:
        """(number in the group, position) of the first message of the table behind each gap; a gap without one is kept
        in mind for the next group of its session."""
        marks: list[tuple[int, int]] = []
        session, before = group[0].session, 0
        for stretch in group:
            if stretch.behind_gap:
                self._marked.add(session)
            if session in self._marked and len(stretch.offsets):
                rows = np.flatnonzero(self._wanted[stretch.data[stretch.offsets]] & (stretch.sizes > 0))
                if len(rows):
                    marks.append((before + int(rows[0]), stretch.position + int(rows[0])))
                    self._marked.discard(session)
            before += len(stretch.offsets)
        return marks

    def decode(self, framed: Framed) -> Decoded:
        """Rows, bad records and drops. Pure and thread-safe."""
        batches: list[pa.RecordBatch] = []
        bad, dropped = list(framed.bad), dict(framed.dropped)
        for taken in framed.parts:
            decoded = taken.messages.decode(taken.part)
            made, wrong = list(decoded.batches), list(decoded.bad)
            if taken.positions is not None:
                made = [_renumbered(batch, taken.positions) for batch in made]
                wrong = [replace(record, seq=int(taken.positions[record.seq or 0])) for record in wrong]
            batches += [_behind_gaps(batch, taken.marks) for batch in made] if taken.marks else made
            bad += wrong
            for why, count in decoded.dropped.items():
                dropped[why] = dropped.get(why, 0) + count
        return Decoded(_in_order(batches) if framed.mixed else batches, bad, dropped)


def _places(group: list[Stretch]) -> Callable[[int], str]:
    ends = np.cumsum([len(stretch.offsets) for stretch in group])

    def place(number: int) -> str:
        which = int(np.searchsorted(ends, number, "right"))
        stretch = group[which]
        return stretch.place(number - int(ends[which]) + len(stretch.offsets))

    return place


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


def _renumbered(batch: pa.RecordBatch, positions: npt.NDArray[np.int64]) -> pa.RecordBatch:
    """`batch` with `seq` as the positions of the messages that it holds now."""
    at = batch.schema.get_field_index("seq")
    numbers = positions[as_numpy(batch.column(at)).astype(np.int64)].astype(np.uint64)
    return batch.set_column(at, batch.schema.field(at), pa.array(numbers))


def _behind_gaps(batch: pa.RecordBatch, marks: tuple[int, ...]) -> pa.RecordBatch:
    """`batch` with the first row at or behind each of `marks` flagged, if it has flags."""
    at = batch.schema.get_field_index("flags")
    if at < 0:
        return batch
    rows = np.searchsorted(as_numpy(batch.column("seq")), np.array(marks, np.uint64))
    flags: Any = as_numpy(batch.column(at)).copy()
    flags[rows[rows < len(flags)]] |= BEHIND_GAP
    return batch.set_column(at, batch.schema.field(at), pa.array(flags))


def _in_order(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """The rows of `batches` by their `seq`, as one batch."""
    if len(batches) < 2:
        return batches
    table = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks()
    order = np.argsort(table["seq"].to_numpy(), kind="stable")
    taken = table.take(pa.array(order)).combine_chunks()
    return list(taken.to_batches())
