"""A recording in several files as one source in time order: split bags, folders of days, globs.

    week = sources.files("s3://ticks/2024-01-0*.itch.gz", sources.Itch)

Files follow one another by the time of their first row. Where they overlap, because several recorders ran at once,
`overlapping` merges their rows; that decodes in one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import pyarrow as pa

from ..pipeline.columns import event_ns
from ..pipeline.context import BadRecord, Context
from ..pipeline.errors import FormatError, GraphError
from ..pipeline.source import Decoded, Position, SourceReader, SourceSpec, Split
from .storage.listing import expand, nothing_at, without
from .storage.stored import PathLike, location

__all__ = ["Files", "files"]


@dataclass(frozen=True)
class Files(SourceSpec):
    """The rows of `parts`, which must have the same columns, one part after the other or, `overlapping`, merged.

    Parts are read in the order of their first row's ``ts_recv`` (equal ones as they were given), which reads the beginning
    of each when the source is opened. `overlapping` merges by ``ts_recv`` and keeps the order inside a part: a row that is
    behind the newest before it in its part goes with that one. `seq` numbers the rows of all parts from 0 on, bad ones
    included. A part without rows counts where it was given. Raises GraphError where there are no parts, or their columns
    differ.
    """

    format: ClassVar[str] = "files"
    parts: tuple[SourceSpec, ...]
    title: str = ""
    overlapping: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        if not self.parts:
            raise GraphError("there are no files to read")

    @cached_property
    def _schema(self) -> pa.Schema:
        first = self.parts[0].schema
        for part in self.parts[1:]:
            schema = part.schema
            if not schema.equals(first):
                wrong = next((f for f, g in zip(schema, first, strict=False) if not f.equals(g)), None)
                raise GraphError(
                    f"{part.name} has other columns than {self.parts[0].name}",
                    expected=first.field(wrong.name)
                    if wrong is not None and wrong.name in first.names
                    else first.names,
                    got=wrong if wrong is not None else schema.names,
                )
        metadata = dict(first.metadata or {}) | {b"penstock.source": self.name.encode()}
        return first.with_metadata(metadata)

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    @property
    def lateness_ns(self) -> int:
        """The largest of the parts."""
        return max(part.lateness_ns for part in self.parts)

    @property
    def name(self) -> str:
        return self.title or f"{self.parts[0].name} and {len(self.parts) - 1} more"

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        if position is not None:
            order, starts = position["order"], position.get("starts", ())
        else:
            order, starts = self._in_order(context)
        parts = [self.parts[number] for number in order]
        if self.overlapping:
            from ._file_sets_merge import MergedReader

            return MergedReader(parts, order, starts, self.schema, context, position)
        from ._file_sets_reader import SequentialReader

        return SequentialReader(parts, order, self.schema, context, position)

    def _in_order(self, context: Context) -> tuple[list[int], list[int]]:
        """Numbers of the parts by their first time, and these times."""
        known: list[tuple[int, int]] = []
        latest = -(1 << 63)
        for number, part in enumerate(self.parts):
            found = first_time(part, Context(context.step, pool=context.pool, clock=context.clock, stop=context.stop))
            latest = latest if found is None else found
            known.append((latest, number))
        known.sort()
        return [number for _, number in known], [start for start, _ in known]

    def retry(self, record: BadRecord) -> Decoded | None:
        """What the first part that can tell says of it."""
        tries = (part.retry(record) for part in self.parts)
        return next((found for found in tries if found is not None), None)

    @property
    def block_bound(self) -> int:
        bounds = [part.block_bound for part in self.parts]
        return 2 * sum(bounds) if self.overlapping else max(bounds)


def first_time(part: SourceSpec, context: Context) -> int | None:
    """``ts_recv`` of the first row of `part` in ns; None if it has none."""
    reader = part.open(context)
    try:
        for block in reader.blocks():
            for batch in reader.decode(block).batches:
                if batch.num_rows:
                    return int(event_ns(batch, "ts_recv")[0])
    finally:
        reader.close()
    return None


def files(
    pattern: PathLike | Sequence[PathLike],
    source: Callable[..., SourceSpec] | None = None,
    *,
    overlapping: bool = False,
    **options: Any,
) -> Files:
    """All files that `pattern` names as one source: a path or URL with ``*``, ``?``, ``[..]`` or ``**``, a folder, several.

    `source` makes the source of each (``sources.Itch``, or ``lambda path: sources.Mcap(path).topic("/imu")``), with
    `options`; None recognises each by its content as `sources.open` does, a recording of one topic as that topic. Raises
    FormatError if no file is named, or one is no recording: nothing is left out without being asked.
    """
    patterns = [pattern] if isinstance(pattern, str) or not isinstance(pattern, Sequence) else list(pattern)
    paths = [path for each in patterns for path in expand(each)]
    if not paths:
        raise FormatError("; ".join(map(nothing_at, patterns)))
    title = location(patterns[0]) if len(patterns) == 1 else f"{len(paths)} files"
    if source is not None:
        return Files(tuple(source(path, **options) for path in paths), title, overlapping)
    parts = _recognised(paths, options, one_folder=len(patterns) == 1)
    return Files(tuple(parts), title, overlapping)


def _recognised(paths: Sequence[str], options: Mapping[str, Any], *, one_folder: bool) -> list[SourceSpec]:
    """The source of each file, by its content."""
    from .dispatch import one_source

    parts: list[SourceSpec] = []
    for path in paths:
        try:
            parts.append(one_source(path, **options))
        except FormatError as error:
            others = without(path, paths) if one_folder else None
            if others is None:
                raise
            raise FormatError(f"{error}; leave it out with a wildcard, such as {others!r}") from None
    topics = {getattr(part, "topic", None): path for path, part in zip(paths, parts, strict=True)}
    if len(topics) > 1 and "topic" not in options:
        told = ", ".join(f"{topic!r} ({path})" for topic, path in list(topics.items())[:4])
        raise GraphError("the files are of different topics: say which with topic=, or name the files of one", got=told)
    return parts
