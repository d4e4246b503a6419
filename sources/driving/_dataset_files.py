"""Tables out of many small files: one file a row, in time order, read where decoding runs.

A file that is missing, too large or damaged is one bad record, and so is one of which it is not known when it was taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.errors import FormatError
from ...pipeline.memory import BufferPool, Lease
from ...pipeline.schema import TIMESTAMP
from ...pipeline.source import Block, Decoded, Position, SourceReader, Split
from ..storage.reread import reread
from ..storage.stored import PathLike, open_stored, within

__all__ = ["MOST_BYTES", "Content", "FilesReader", "Item", "bound_of", "event_columns", "kept", "ranges", "reread_file"]

#: A file of more bytes is put aside unread, unless told otherwise.
MOST_BYTES = 64 << 20
#: Files of a block, and bytes after which no more files are added to one.
_FILES, _BYTES = 32, 8 << 20
#: Bytes of a damaged file that quarantine keeps.
_KEPT = 1 << 16


@dataclass(frozen=True, slots=True)
class Item:
    """A file to read: its time in ns, its path in the folder, its size; `error` says why it cannot be a row."""

    time: int
    name: str
    size: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """A file that was read: `view` is its bytes within `lease`, at `offset`."""

    item: Item
    seq: int
    lease: Lease
    offset: int
    view: memoryview


#: Turns contents into a batch; what raises ValueError is put aside. Gives the batch (or None) and ``(content, error)``.
Convert = Callable[[Sequence[Content], BufferPool], tuple[pa.RecordBatch | None, Sequence[tuple[Content, str]]]]


class FilesReader(SourceReader):
    """Reads `items` of `folder` in order. `format` names operations."""

    def __init__(
        self,
        folder: str,
        format: str,
        items: Sequence[Item],
        convert: Convert,
        context: Context,
        split: Split | None,
        position: Position | None,
        most_bytes: int,
    ) -> None:
        self._folder, self._format, self._items, self._convert = folder, format, items, convert
        self._context, self._most = context, most_bytes
        detail = split.detail if split is not None else {}
        self._at, self._stop = int(detail.get("start", 0)), int(detail.get("stop", len(items)))
        if position:
            self._at, name = int(position["seq"]), position.get("name")
            if not 0 < self._at <= len(items) or items[self._at - 1].name != name:
                raise FormatError(
                    f"{folder}: file {self._at - 1} in time order is not {name!r} any more; has it changed?"
                )
        self._stop = min(self._stop, len(items))

    def blocks(self) -> Iterator[Block]:
        index = 0
        while self._at < self._stop:
            start, size = self._at, 0
            while self._at < min(self._stop, start + _FILES) and (self._at == start or size < _BYTES):
                size += min(self._items[self._at].size, self._most)
                self._at += 1
            after = {"seq": self._at, "name": self._items[self._at - 1].name}
            yield Block(index, start, self._at - start, size, after, (start, self._at))
            index += 1

    def decode(self, block: Block) -> Decoded:
        start, stop = block.payload
        contents, bad = [], []
        for seq in range(start, stop):
            item = self._items[seq]
            try:
                contents.append(self._read(item, seq))
            except (OSError, ValueError, FormatError) as error:
                bad.append(self._record(item, seq, "read", str(error) or type(error).__name__, b""))
        batch, damaged = self._convert(contents, self._context.pool)
        if batch is not None and "data" in batch.schema.names:  # pictures, side by side in one column
            self._context.copied(sum(len(c.view) for c in contents))
        bad += [self._record(c.item, c.seq, "decode", error, bytes(c.view[:_KEPT])) for c, error in damaged]
        bad.sort(key=lambda record: record.seq or 0)
        return Decoded([] if batch is None or not batch.num_rows else [batch], bad)

    def _read(self, item: Item, seq: int) -> Content:
        if item.error:
            raise ValueError(item.error)
        with open_stored(within(self._folder, item.name)) as stored:
            size = stored.size
            if size > self._most:
                raise ValueError(f"it has {size} bytes, more than max_file_bytes={self._most}")
            lease = self._context.pool.take(size)
            view = memoryview(lease.array(np.uint8, size))  # type: ignore[arg-type]
            if stored.read_into(0, view) != size:
                raise ValueError(f"its {size} bytes are not there any more")
        return Content(item, seq, lease, 0, view)

    def _record(self, item: Item, seq: int, what: str, error: str, data: bytes) -> BadRecord:
        place = within(self._folder, item.name) if item.name else self._folder
        return BadRecord(place, f"{self._format}.{what}", " ".join(error.split()), data, seq)


class Folder(Protocol):
    """A source of files."""

    @property
    def path(self) -> PathLike: ...

    def items(self) -> list[Item]: ...

    def open(self, context: Context) -> SourceReader: ...


def reread_file(spec: Folder, record: BadRecord) -> Decoded | None:
    """The row of the file that `record` is about, as the file is now; None if it is no file of `spec`."""
    for seq, item in enumerate(spec.items()):
        if item.name and within(spec.path, item.name) == record.place:
            return reread(spec.open(Context("retry")), {seq: record.seq or 0})
    return None


def ranges(count: int, wanted: int) -> Sequence[Split]:
    """Up to `wanted` splits of `count` items."""
    parts = max(1, min(wanted, count))
    if parts == 1:
        return (Split(0, 1),)
    bounds = [count * i // parts for i in range(parts + 1)]
    return tuple(Split(i, parts, {"start": bounds[i], "stop": bounds[i + 1]}) for i in range(parts))


def bound_of(items: Sequence[Item], most: int) -> int:
    """Bytes of the largest block with what is decoded from it: pictures are copied once, points become columns."""
    largest = max((min(item.size, most) for item in items), default=0)
    return max(1 << 20, 3 * (_BYTES + largest))


def event_columns(contents: Sequence[Content], received: Sequence[int] | None = None) -> list[pa.Array]:
    """ts_event, ts_recv and seq of files."""
    times = pa.array(np.array([c.item.time for c in contents], np.int64)).cast(TIMESTAMP)
    other = times if received is None else pa.array(np.array(received, np.int64)).cast(TIMESTAMP)
    return [times, other, pa.array(np.array([c.seq for c in contents], np.uint64))]


def kept(contents: Sequence[Content], look: Callable[[Content], Any]) -> tuple[list[Content], list[Any], list[Any]]:
    """What `look` gives for each content; those on which it raises ValueError come apart, with the error."""
    good, found, damaged = [], [], []
    for content in contents:
        try:
            found.append(look(content))
        except ValueError as error:
            damaged.append((content, str(error)))
        else:
            good.append(content)
    return good, found, damaged
