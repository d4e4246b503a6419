"""The first rows of a recording, to look at.

print(as_text(first_rows("drive.mcap", 5, topic="/imu")))
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ..pipeline.context import Context
from ..pipeline.errors import GraphError
from ..pipeline.source import SourceSpec
from ._cell_text import cell_text, is_number
from .dispatch import open_source
from .file_sets import files
from .formats import format_of, recordings_at
from .storage.stored import PathLike, location

__all__ = ["FirstRows", "as_text", "first_rows"]

_GAP = "  "


@dataclass(frozen=True, slots=True)
class FirstRows:
    """The first rows of the source called `name`; `bad` is how many records before their end did not decode."""

    name: str
    rows: pa.Table
    bad: int
    #: Whether the source ended behind them.
    ended: bool


def first_rows(
    path: PathLike, rows: int = 10, *, topic: str | None = None, table: str | None = None, **options: Any
) -> FirstRows:
    """The first `rows` rows of a file, folder, URL or wildcards, read no further than needed.

    `topic` names one of a recording's (of a data set, what its folder is divided into), `table` and `options` go to the
    source. Raises GraphError where there are several topics and none is named, FormatError, OSError.
    """
    if rows < 1:
        raise GraphError(f"{rows} rows are none to show", expected="at least 1")
    spec = _source(path, topic, {**options, **({} if table is None else {"table": table})})
    taken: list[pa.RecordBatch] = []
    left, bad, ended = rows, 0, True
    reader = spec.open(Context("head"))
    try:
        framing: Any = reader.blocks()
        with closing(framing) as blocks:
            for block in blocks:
                decoded = reader.decode(block)
                bad += len(decoded.bad)
                for batch in decoded.batches:
                    ended = ended and batch.num_rows <= left
                    taken.append(batch.slice(0, left))
                    left -= taken[-1].num_rows
                if not left:
                    ended = False
                    break
    finally:
        reader.close()
    return FirstRows(spec.name, pa.Table.from_batches(taken, spec.schema), bad, ended)


def _source(path: PathLike, topic: str | None, options: dict[str, Any]) -> SourceSpec:
    places, several = recordings_at(path)
    if topic is not None:
        options["topic" if several else format_of(places[0]).choice or "topic"] = topic
    if several:
        return files(path, **options)
    found = open_source(places[0], **options)
    if isinstance(found, SourceSpec):
        return found
    names = list(found.topics())
    if len(names) != 1:
        what = "several topics: choose one with --topic NAME" if names else "no topics, and so no rows"
        raise GraphError(f"{location(path)} holds {what}", expected=", ".join(names) or None)
    only: SourceSpec = found.topic(names[0])
    return only


def as_text(found: FirstRows, width: int = 120) -> str:
    """A table of `width` characters: times to the ns, long values shortened, columns that do not fit named below it."""
    rows = found.rows
    if not rows.num_rows:
        lines = [f"{found.name}: no rows"]
    else:
        lines = [
            f"{found.name}: " + ("all " if found.ended else "first ") + f"{rows.num_rows:,} rows",
            *_table(rows, width),
        ]
    if found.bad:
        lines.append(f"{found.bad:,} records that do not decode were left out: penstock run --quarantine keeps them")
    return "\n".join(lines)


def _table(rows: pa.Table, width: int) -> list[str]:
    names = list(rows.schema.names)
    notes = []
    if rows.column("ts_event").equals(rows.column("ts_recv")):
        names.remove("ts_recv")
        notes.append("ts_recv is the same as ts_event")
    columns: list[list[str]] = []
    used = 0
    for name in names:
        kind = rows.schema.field(name).type
        cells = [name, *(cell_text(value) for chunk in rows.column(name).chunks for value in chunk)]
        size = max(map(len, cells))
        used += size + (len(_GAP) if columns else 0)
        if columns and used > width:
            break
        columns.append([cell.rjust(size) if is_number(kind) else cell.ljust(size) for cell in cells])
    if left := names[len(columns) :]:
        told = ", ".join(f"{name} {_kind(rows.schema.field(name).type)}" for name in left)
        notes.append(f"{len(left)} more column{'s' if len(left) > 1 else ''}, which --json shows: {told}")
    return [*(_GAP.join(line).rstrip() for line in zip(*columns, strict=True)), *notes]


def _kind(kind: pa.DataType) -> str:
    text = str(kind.value_type) if pa.types.is_dictionary(kind) else str(kind)
    return text if len(text) <= 40 else text[:37] + "..."
