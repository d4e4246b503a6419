"""One topic of a rosbag2 recording, whichever way its files are stored, as parts to read and the table they become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from typing import Any

from ...pipeline.context import Context
from ...pipeline.errors import FormatError
from ...pipeline.memory import BufferPool
from ...pipeline.source import Decoded
from ._mcap_catalog import Catalog
from ._mcap_contents import Contents, Unit, block_bytes, catalog_of, joined, topic_contents
from ._mcap_inspect import TopicInfo
from ._mcap_topic import topic_table
from ._rosbag2_folder import BagFiles, bag_files
from ._rosbag2_parts import Part, PartUnit, lost
from ._rosbag2_rows import RowReader
from ._rosbag2_sqlite import Database, RowUnit, Topic, database
from ._rosbag2_types import table_of
from .cdr import Table

__all__ = ["Opened", "RecordedTopic", "opened"]


@dataclass(frozen=True)
class RecordedTopic:
    """A topic ready to be read: its table and parts, and the largest bytes a unit has."""

    table: Table
    parts: tuple[Part, ...]
    largest: int


@dataclass(frozen=True)
class Opened:
    """A recording with what its files hold: catalogs of MCAP files or SQLite databases, in order."""

    bag: BagFiles
    catalogs: tuple[Catalog, ...]
    databases: tuple[Database, ...]
    limit: int

    def topics(self) -> dict[str, TopicInfo]:
        """Type and number of messages by topic, sorted by name."""
        types: dict[str, set[str]] = {}
        counts: dict[str, int] = {}
        for catalog in self.catalogs:
            for name in catalog.topics():
                channels = catalog.channels_of(name)
                counts[name] = counts.get(name, 0) + catalog.count(channels)
                found = {kind.name for c in channels if (kind := catalog.types.get(c.type_id))}
                types.setdefault(name, set()).update(found)
        for file in self.databases:
            for topic in file.topics:
                counts[topic.name] = counts.get(topic.name, 0) + file.count({topic.id})
                types.setdefault(topic.name, set()).add(topic.type)
        return {name: TopicInfo(", ".join(sorted(types[name])), counts[name]) for name in sorted(counts)}

    def messages(self) -> int:
        """Messages of all topics."""
        return sum(sum(c.counts.values()) for c in self.catalogs) + sum(len(file.ids) for file in self.databases)

    def times(self) -> tuple[int, int] | None:
        """First and last time in ns, None without messages."""
        found = [(c.start_ns, c.end_ns) for c in self.catalogs if c.start_ns is not None and c.end_ns is not None]
        found += [(int(file.times.min()), int(file.times.max())) for file in self.databases if len(file.ids)]
        return (min(a for a, _ in found), max(b for _, b in found)) if found else None

    def problem(self) -> str:
        """What is damaged, by file; empty if nothing is."""
        told = [f"{c.path}: {c.problem}" for c in self.catalogs if c.problem]
        told += [f"{file.path}: {file.damage}" for file in self.databases if file.damage]
        for file in self.databases:
            strangers = len(file.ids) - file.count({topic.id for topic in file.topics})
            if strangers:
                told.append(f"{file.path}: {strangers} messages are of no topic that it lists")
        return "; ".join(told)

    def encoding(self, topic: str) -> str:
        """How the messages of `topic` are written."""
        for catalog in self.catalogs:
            if channels := catalog.channels_of(topic):
                return channels[0].encoding
        return next(t.encoding for file in self.databases for t in file.topics if t.name == topic)

    def topic(self, name: str, definitions: Mapping[str, str], *, source: str) -> RecordedTopic:
        """Raises FormatError if there is no such topic or its type differs between the files."""
        if name not in self.topics():
            self._no_topic(name)
        return (self._of_mcap if self.catalogs else self._of_sqlite)(name, definitions, source)

    def _no_topic(self, name: str) -> None:
        there = list(self.topics())
        near = get_close_matches(name, there, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        listed = ", ".join(there[:40]) + (f", ... ({len(there)} in all)" if len(there) > 40 else "")
        raise FormatError(f"{self.bag.path}: no topic {name!r}{hint}. Topics in the recording: {listed or 'none'}")

    def _of_mcap(self, name: str, definitions: Mapping[str, str], source: str) -> RecordedTopic:
        held = [
            topic_contents(catalog.path, name, self.limit) for catalog in self.catalogs if catalog.channels_of(name)
        ]
        tables = [topic_table(contents, name, source=source, format="rosbag2") for contents in held]
        self._same(name, tables, [contents.catalog.path for contents in held])
        table, parts, seq, largest = tables[0], [], 0, 0
        for contents in held:
            units = []
            for run in joined(replace(unit, first_seq=unit.first_seq + seq) for unit in contents.units):
                records, length = sum(unit.records for unit in run), sum(unit.piece.length for unit in run)
                units.append(PartUnit(run[0].first_seq, records, length, {"offset": run[-1].piece.end}, run))
            seq += sum(unit.records for unit in contents.units)
            largest = max(largest, block_bytes(contents.units))
            opener = partial(_open_mcap, contents, table, self.limit)
            parts.append(Part(contents.catalog.path, units, opener))
        return RecordedTopic(table, tuple(parts), largest)

    def _of_sqlite(self, name: str, definitions: Mapping[str, str], source: str) -> RecordedTopic:
        tables: list[Table] = []
        paths: list[str] = []
        parts, seq, largest = [], 0, 0
        opening: list[tuple[Database, set[int], Topic, list[PartUnit]]] = []
        for file in self.databases:
            topics = [topic for topic in file.topics if topic.name == name]
            if not topics:
                continue
            if len({(topic.type, topic.encoding) for topic in topics}) > 1:
                raise FormatError(f"{file.path}: topic {name!r} mixes message types; read its files by type")
            ids = {topic.id for topic in topics}
            units = []
            for own in file.units(ids):
                shifted = replace(own, first_seq=seq)
                units.append(PartUnit(seq, own.records, own.nbytes, {"rowid": int(own.ids[-1])}, shifted))
                seq += own.records
                largest = max(largest, own.nbytes)
            if file.damage:
                units.append(lost(file.path, file.damage, seq))
                seq += 1
            first = self._first(file, topics[0], units)
            given = definitions.get(topics[0].type)
            if units or not tables:
                tables.append(table_of(topics[0], given, first, file.distro, source=source))
                paths.append(file.path)
            opening.append((file, ids, topics[0], units))
        self._same(name, tables, paths)
        for file, ids, topic, units in opening:
            opener = partial(_open_rows, file, ids, topic.encoding, tables[0], self.limit)
            parts.append(Part(file.path, units, opener))
        return RecordedTopic(tables[0], tuple(parts), 4 * largest)

    def _first(self, file: Database, topic: Topic, units: Sequence[PartUnit]) -> bytes | None:
        """The topic's first message, to see which definition describes it."""
        if not units or not isinstance(units[0].own, RowUnit):
            return None
        kept: list[bytes] = []

        def keep(data: Any, starts: Any, lengths: Any, log_times: Any, first: int, pool: BufferPool) -> Any:
            raise _Seen(data[: lengths[0]].tobytes())

        one = replace(units[0].own, ids=units[0].own.ids[:1])
        reader = RowReader(file, [topic.id], topic.encoding, keep, self.limit, Context("first message"))
        try:
            reader.decode(one)
        except _Seen as seen:
            kept.append(seen.message)
        finally:
            reader.close()
        return kept[0] if kept and kept[0] else None

    def _same(self, name: str, tables: Sequence[Table], paths: Sequence[str]) -> None:
        for table, path in zip(tables, paths, strict=True):
            if not table.schema.equals(tables[0].schema, check_metadata=True):
                raise FormatError(
                    f"{path}: topic {name!r} is of another type than in {paths[0]}; read the files one by one"
                )


class _Seen(Exception):
    def __init__(self, message: bytes) -> None:
        self.message = message


class _McapUnits:
    def __init__(self, contents: Contents, table: Table, limit: int, context: Context) -> None:
        from ._mcap_reader import McapReader

        self._reader = McapReader(contents, table.decoder(), limit, context, None, None)

    def decode(self, units: Sequence[Unit]) -> Decoded:
        return self._reader.decode_units(units)

    def close(self) -> None:
        self._reader.close()


def _open_mcap(contents: Contents, table: Table, limit: int, context: Context) -> _McapUnits:
    return _McapUnits(contents, table, limit, context)


def _open_rows(file: Database, ids: set[int], encoding: str, table: Table, limit: int, context: Context) -> RowReader:
    return RowReader(file, ids, encoding, table.decoder(), limit, context)


def opened(path: str, limit: int) -> Opened:
    """The recording at `path` (a file, a folder, or a folder's metadata.yaml) as it is now. Raises FormatError, OSError."""
    bag = bag_files(path)
    if bag.storage == "mcap":
        return Opened(bag, tuple(catalog_of(file, limit) for file in bag.files), (), limit)
    return Opened(bag, (), tuple(database(file, limit) for file in bag.files), limit)
