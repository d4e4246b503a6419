"""One topic of a file as a list of units with their row numbers, from whichever catalog can be trusted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from ...pipeline.errors import FormatError
from ..storage.stored import stamp_of
from ._mcap_catalog import BROKEN, Catalog, Piece, indexed_count, read_summary, remains
from ._mcap_chunk import RecordFile
from ._mcap_format import Channel, MessageType

__all__ = ["Contents", "Unit", "block_bytes", "catalog_of", "joined", "topic_contents", "units_of"]

#: What units of one block hold together at most, of all topics, and records of the topic: a block costs as much as some
#: hundred messages do, and of many topics a chunk has a dozen.
_JOINED_BYTES, _JOINED_RECORDS = 4 << 20, 1 << 14


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece as one topic sees it: `messages` of the topic, numbered from `first_seq`.

    `records` also counts the bad record that stands for what a damaged piece lost beyond them.
    """

    piece: Piece
    first_seq: int
    messages: int
    records: int


@dataclass(frozen=True)
class Contents:
    """A topic: its channels, message type (None if it has no schema), and units in file order."""

    catalog: Catalog
    channels: tuple[Channel, ...]
    type: MessageType | None
    units: tuple[Unit, ...]


def joined(units: Iterable[Unit]) -> Iterator[tuple[Unit, ...]]:
    """Units that follow one another, as many at a time as one block may hold."""
    run: list[Unit] = []
    size = records = 0
    for unit in units:
        own = unit.piece.size or unit.piece.length
        if run and (size + own > _JOINED_BYTES or records + unit.records > _JOINED_RECORDS):
            yield tuple(run)
            run, size, records = [], 0, 0
        run.append(unit)
        size, records = size + own, records + unit.records
    if run:
        yield tuple(run)


def block_bytes(units: Iterable[Unit]) -> int:
    """The most that the units of one block hold: packed, unpacked, and as much again for their columns."""
    sizes = [unit.piece.length + 2 * (unit.piece.size or unit.piece.length) for unit in units]
    return max(max(sizes, default=0), min(sum(sizes), 3 * _JOINED_BYTES))


def catalog_of(path: str, limit: int, *, walk: bool = False) -> Catalog:
    """The catalog of the file as it is now; `walk` reads the whole file instead of the summary. Cached."""
    return _catalog(path, limit, walk, stamp_of(path))


def topic_contents(path: str, topic: str, limit: int) -> Contents:
    """The units of `topic`; raises FormatError if there is no such topic or it mixes message types. Cached."""
    return _contents(path, topic, limit, stamp_of(path))


@lru_cache(maxsize=16)
def _catalog(path: str, limit: int, walk: bool, stamp: tuple[object, ...]) -> Catalog:
    with RecordFile(path) as file:
        found = None if walk else read_summary(file)
        if found is None:
            from ._mcap_survey import survey

            found = survey(file, limit, *remains(file))
        return found


@lru_cache(maxsize=64)
def _contents(path: str, topic: str, limit: int, stamp: tuple[object, ...]) -> Contents:
    catalog = _catalog(path, limit, False, stamp)
    if catalog.indexed and not catalog.channels_of(topic):
        _no_topic(catalog, topic)
    if catalog.indexed:
        try:
            return units_of(catalog, topic)
        except FormatError:
            catalog = _catalog(path, limit, True, stamp)
    return units_of(catalog, topic)


def units_of(catalog: Catalog, topic: str) -> Contents:
    """The units of `topic`; raises FormatError if there is no such topic or it mixes message types."""
    channels = catalog.channels_of(topic)
    if not channels:
        _no_topic(catalog, topic)
    kind = _one_type(catalog, topic, channels)
    wanted = [channel.id for channel in channels]
    units: list[Unit] = []
    seq = 0
    with RecordFile(catalog.path) as file:
        for piece in catalog.pieces:
            counts = piece.counts
            if piece.indexes is not None:
                counts = {i: indexed_count(file, piece.indexes[i], i) for i in wanted if i in piece.indexes}
            messages = sum(counts.get(i, 0) for i in wanted)
            records = messages + bool(piece.kind == BROKEN or piece.error)
            if records:
                units.append(Unit(piece, seq, messages, records))
                seq += records
    if catalog.indexed and sum(unit.messages for unit in units) != catalog.count(channels):
        raise FormatError(f"{catalog.path}: the message indexes and the statistics do not agree")
    return Contents(catalog, tuple(channels), kind, tuple(units))


def _one_type(catalog: Catalog, topic: str, channels: list[Channel]) -> MessageType | None:
    kinds = {(kind.name, kind.encoding, kind.data) for c in channels if (kind := catalog.types.get(c.type_id))}
    encodings = {channel.encoding for channel in channels}
    if len(kinds) > 1 or len(encodings) > 1:
        names = sorted({name for name, _, _ in kinds})
        raise FormatError(
            f"{catalog.path}: topic {topic!r} mixes message types {names} or encodings {sorted(encodings)}; "
            "split the recording by type (ros2 bag convert, mcap filter) and read the parts"
        )
    return next((kind for c in channels if (kind := catalog.types.get(c.type_id))), None)


def _no_topic(catalog: Catalog, topic: str) -> None:
    from difflib import get_close_matches

    there = catalog.topics()
    near = get_close_matches(topic, there, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(there[:40]) + (f", ... ({len(there)} in all)" if len(there) > 40 else "")
    raise FormatError(f"{catalog.path}: no topic {topic!r}{hint}. Topics in the file: {listed or 'none'}")
