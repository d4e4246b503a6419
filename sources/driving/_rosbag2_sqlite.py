"""A rosbag2 SQLite file: its topics, its rows in the order of their times, and how they are read.

The standard library's SQLite opens the file read-only. The schema of the database comes from the file and is as hostile as
the rest of it: only plain tables are read, and no value longer than a given limit. A file with a write-ahead log or a
journal beside it is opened with it; any other as immutable, so that a file on a read-only disk can be read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from ...pipeline.errors import FormatError
from ..storage.stored import is_url, stamp_of
from ._mcap_local import LocalFile, local_file

__all__ = ["MAGIC", "UNREADABLE", "Database", "RowUnit", "Topic", "connect", "database", "has_messages"]

MAGIC = b"SQLite format 3\0"
#: A block of rows: as many as fit both.
_ROWS, _BYTES = 1 << 14, 4 << 20
_FETCH = 1 << 14
_TABLE_LIMIT = 1 << 16

Ids = npt.NDArray[np.int64]

#: What SQLite raises for a damaged file. Its message may quote a name that is no UTF-8, which Python then cannot tell.
UNREADABLE = (sqlite3.Error, UnicodeError)


@dataclass(frozen=True, slots=True)
class Topic:
    """A row of ``topics`` with the definition that the bag has for its type (None: it has none)."""

    id: int
    name: str
    type: str
    encoding: str
    notation: str
    definition: bytes | None


@dataclass(frozen=True, eq=False)
class RowUnit:
    """Rows of one topic that are read together: their ids in the order of (timestamp, id), and their bytes."""

    first_seq: int
    ids: Ids
    nbytes: int

    @property
    def records(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Database:
    """What a file holds. `ids`, `topic_ids`, `times` and `sizes` are its messages in the order of their ids.

    `damage` says what could not be read, `distro` which ROS wrote it (both may be empty).
    """

    path: str
    local: LocalFile
    topics: tuple[Topic, ...]
    distro: str
    ids: Ids
    topic_ids: Ids
    times: Ids
    sizes: Ids
    damage: str
    _units: dict[frozenset[int], list[RowUnit]] = field(default_factory=dict, repr=False)

    def count(self, topics: set[int]) -> int:
        """Messages of the topics with these ids."""
        return int(np.isin(self.topic_ids, sorted(topics)).sum())

    def units(self, topics: set[int]) -> list[RowUnit]:
        """Their rows in order, in blocks."""
        kept = frozenset(topics)
        if kept not in self._units:
            self._units[kept] = self._blocks(topics)
        return self._units[kept]

    def _blocks(self, topics: set[int]) -> list[RowUnit]:
        rows = np.flatnonzero(np.isin(self.topic_ids, sorted(topics)))
        rows = rows[np.lexsort((self.ids[rows], self.times[rows]))]
        sizes = np.maximum(self.sizes[rows], 0)
        total = np.cumsum(sizes)
        units, at = [], 0
        while at < len(rows):
            before = int(total[at - 1]) if at else 0
            stop = int(np.searchsorted(total, before + _BYTES, "right"))
            stop = min(max(stop, at + 1), at + _ROWS, len(rows))
            units.append(RowUnit(at, self.ids[rows[at:stop]], int(total[stop - 1]) - before))
            at = stop
        return units


def database(path: str, limit: int) -> Database:
    """The database as it is now. Raises FormatError if it is no rosbag2 file, OSError. Cached."""
    stamp: tuple[object, ...] = stamp_of(path)
    for beside in _besides(path):
        stamp = (*stamp, beside.name, *stamp_of(beside))
    return _database(path, limit, stamp)


def _besides(path: str) -> list[Path]:
    """A write-ahead log or journal that holds part of what is in the file."""
    if is_url(path):
        return []
    return [p for end in ("-wal", "-journal") if (p := Path(path + end)).is_file() and p.stat().st_size]


def connect(local: LocalFile, limit: int) -> sqlite3.Connection:
    """A connection to the file, for any one thread at a time. Raises sqlite3.Error."""
    mode = "mode=ro" if _besides(local.path) else "mode=ro&immutable=1"
    connection = sqlite3.connect(
        f"file:{quote(str(Path(local.path).absolute()))}?{mode}", uri=True, check_same_thread=False
    )
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limit)
    connection.text_factory = lambda text: text.decode("utf-8", "replace")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


@lru_cache(maxsize=8)
def _database(path: str, limit: int, stamp: tuple[object, ...]) -> Database:
    local = local_file(path)
    with Path(local.path).open("rb") as stream:
        head = stream.read(len(MAGIC))
    if head != MAGIC:
        found = f"begins with {head!r}" if head else "is empty (0 bytes)"
        raise FormatError(f"{path}: not a SQLite file: it {found}")
    try:
        with closing(connect(local, limit)) as connection:
            return _read(path, local, connection)
    except UNREADABLE as error:
        hint = ""
        if beside := _besides(local.path):
            names = ", ".join(p.name for p in beside)
            hint = (
                f" ({names} beside it holds part of the recording: copy all of it to a folder that can be written to)"
            )
        raise FormatError(f"{path}: SQLite cannot read it: {error}{hint}") from None


def _read(path: str, local: LocalFile, connection: sqlite3.Connection) -> Database:
    for table, needed in (("messages", ("topic_id", "timestamp", "data")), ("topics", ("id", "name", "type"))):
        _check_table(path, connection, table, needed)
    topics = _topics(connection)
    distro = ""
    if _columns(connection, "schema") >= {"ros_distro"}:
        row = connection.execute("SELECT ros_distro FROM schema LIMIT 1").fetchone()
        distro = row[0] if row and isinstance(row[0], str) else ""
    rows, damage = _rows(connection)
    ids, topic_ids, times, sizes = rows
    return Database(path, local, topics, distro, ids, topic_ids, times, sizes, damage)


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    """The plain columns of a plain table; none of a view or a virtual table."""
    kind = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", [table]).fetchone()
    if kind is None or not isinstance(kind[0], str) or not kind[0].upper().startswith("CREATE TABLE"):
        return set()
    return {row[1] for row in connection.execute(f"PRAGMA table_xinfo({table})") if row[6] == 0}


def _check_table(path: str, connection: sqlite3.Connection, table: str, needed: tuple[str, ...]) -> None:
    if not _columns(connection, table) >= set(needed):
        raise FormatError(f"{path}: not a rosbag2 file: no table {table!r} with the columns {', '.join(needed)}")


def _topics(connection: sqlite3.Connection) -> tuple[Topic, ...]:
    definitions: dict[str, tuple[str, bytes | None]] = {}
    if _columns(connection, "message_definitions") >= {"topic_type", "encoding", "encoded_message_definition"}:
        query = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions LIMIT ?"
        for name, notation, text in connection.execute(query, [_TABLE_LIMIT]):
            if isinstance(text, str) and text:
                definitions.setdefault(str(name), (str(notation), text.encode()))
    encoding = "serialization_format" if "serialization_format" in _columns(connection, "topics") else "'cdr'"
    query = f"SELECT id, name, type, {encoding} FROM topics ORDER BY id LIMIT ?"
    found = []
    for number, name, kind, written in connection.execute(query, [_TABLE_LIMIT]):
        if isinstance(number, int):
            own = definitions.get(str(kind)) or definitions.get(str(kind).removesuffix("_Event"))
            notation, definition = own or ("", None)
            found.append(Topic(number, str(name), str(kind), str(written or "cdr"), notation, definition))
    return tuple(found)


_SCAN = (
    "SELECT rowid, "
    "CASE typeof(topic_id) WHEN 'integer' THEN topic_id ELSE -1 END, "
    "CASE typeof(timestamp) WHEN 'integer' THEN timestamp ELSE -1 END, "
    "CASE typeof(data) WHEN 'blob' THEN length(data) ELSE -1 END FROM messages"
)


def _rows(connection: sqlite3.Connection) -> tuple[list[Ids], str]:
    """Id, topic, time and size of the messages by id. Behind damage, what can be read from the other end."""
    parts, damage = _scan(connection, f"{_SCAN} ORDER BY rowid", 1)
    if damage:
        last = int(parts[-1][-1, 0]) if parts else -(1 << 63)
        behind, _ = _scan(connection, f"{_SCAN} WHERE rowid > {last} ORDER BY rowid DESC", -1)
        damage += f"; rows behind id {last}" if parts else ""
        if behind:
            damage += f" and before id {int(behind[-1][-1, 0])}"
            rest = np.concatenate(behind)[::-1]
            parts.append(rest[rest[:, 0] > last])
        damage += " are lost"
    whole = np.concatenate(parts) if parts else np.empty((0, 4), np.int64)
    return list(np.ascontiguousarray(whole.T)), damage


def _scan(connection: sqlite3.Connection, query: str, step: int) -> tuple[list[Ids], str]:
    """Rows in the order of `query`, and what ended them early. Ids that do not go on in one direction are damage too."""
    parts: list[Ids] = []
    last: int | None = None
    for rows, error in _batches(connection, query):
        part = np.array(rows, np.int64).reshape(-1, 4)
        ids = part[:, 0]
        wrong = np.flatnonzero(ids[1:] <= ids[:-1] if step > 0 else ids[1:] >= ids[:-1]) + 1
        stop = int(wrong[0]) if len(wrong) else len(ids)
        if last is not None and len(ids) and (int(ids[0]) - last) * step <= 0:
            stop = 0
        if stop:
            parts.append(part[:stop])
            last = int(ids[stop - 1])
        if error or stop < len(ids):
            return parts, error or "its rows are not in the order of their ids"
    return parts, ""


def _batches(connection: sqlite3.Connection, query: str) -> Iterator[tuple[list[Any], str]]:
    rows: list[Any] = []
    try:
        for row in connection.execute(query):
            rows.append(row)
            if len(rows) == _FETCH:
                yield rows, ""
                rows = []
    except UNREADABLE as error:
        yield rows, str(error)
        return
    yield rows, ""


def has_messages(path: str) -> bool:
    """Whether a SQLite file has the tables of rosbag2. Raises FormatError if SQLite cannot read it, OSError."""
    local = local_file(path)
    try:
        with closing(connect(local, 1 << 20)) as connection:
            messages = _columns(connection, "messages") >= {"topic_id", "timestamp", "data"}
            return messages and _columns(connection, "topics") >= {"id", "name", "type"}
    except UNREADABLE as error:
        raise FormatError(f"{path}: SQLite cannot read it: {error}") from None
