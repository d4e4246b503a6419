"""A folder of Parquet files.

The same rows give the same files, byte for byte, however they were batched on the way: rows are cut into row groups and
files by their number and size alone, and written in one layout (`_row_groups`, `_canonical`). Files get their names when
the run commits; until then they are in a hidden folder that readers skip.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from ..pipeline.context import Context
from ..pipeline.errors import GraphError, RunError
from ..pipeline.operator import State
from ..pipeline.sink import Sink, SinkSpec
from ._canonical import check_columns
from ._hive import can_name_a_folder, partitions
from ._parquet_files import Part, part_name, part_place, results, stands
from ._row_groups import RowGroups
from ._staging import Staging, interrupted_commit

__all__ = ["Parquet"]

_LABEL = "parquet"
#: Each partition has a file open until the next checkpoint.
_MOST_PARTITIONS = 512
_COMPRESSIONS = (None, "zstd", "snappy", "lz4", "gzip")
_PUBLISH = ("end", "checkpoint")


@dataclass(frozen=True)
class Parquet(SinkSpec):
    """Write rows to ``path/part-00000.parquet`` and on, or to ``path/COLUMN=VALUE/part-00000.parquet``.

    A file ends after `rows_per_file` rows, a row group after `row_group_rows` rows or with the row that makes its values
    `row_group_bytes` large; with `partition_by` (text, integer, boolean or date columns, Hive layout) these groups are
    counted over all partitions together, so that memory stays bounded. `compression` is ``"zstd"``, ``"snappy"``,
    ``"lz4"``, ``"gzip"`` or None. A folder that holds Parquet files already is refused unless `overwrite`, which replaces
    them when results first become visible. A run without rows writes one empty file, or none with `partition_by`.

    Files become visible when the run ends (``publish="end"``), all or none. With ``publish="checkpoint"`` those of each
    checkpoint do as soon as it is stored, for pipelines that never end: always whole files, each row in one of them. What
    was published stays, also when the run fails later; a run resumes only if the files of its last checkpoint are still
    there. Without checkpoints both mean the end.

    The same rows give the same bytes in the same files, unless the run makes checkpoints: a checkpoint ends the files that
    are open, so where it falls decides how rows are spread over files and row groups, never which rows there are, nor
    their order within the numbered files of a partition.

    Tensors and dictionaries of strings come back as such; dictionaries of other values come back as their values.
    """

    path: str | os.PathLike[str]
    _: KW_ONLY
    partition_by: str | Sequence[str] = ()
    rows_per_file: int = 1_000_000
    row_group_rows: int = 65_536
    row_group_bytes: int = 64 << 20
    compression: str | None = "zstd"
    overwrite: bool = False
    publish: str = "end"

    kind: ClassVar[str] = "parquet"

    def __post_init__(self) -> None:
        columns = (self.partition_by,) if isinstance(self.partition_by, str) else tuple(self.partition_by)
        object.__setattr__(self, "path", os.fspath(self.path))
        object.__setattr__(self, "partition_by", columns)
        for limit in ("rows_per_file", "row_group_rows", "row_group_bytes"):
            if getattr(self, limit) < 1:
                raise GraphError(f"Parquet: {limit} must be at least 1, got {getattr(self, limit)}")
        if self.compression not in _COMPRESSIONS:
            raise GraphError(f"Parquet: compression must be one of {_COMPRESSIONS}, got {self.compression!r}")
        if self.publish not in _PUBLISH:
            raise GraphError(f"Parquet: publish must be one of {_PUBLISH}, got {self.publish!r}")

    @property
    def name(self) -> str:
        return f"{self.path} (parquet)"

    def state_bound(self, schema: pa.Schema) -> int:
        """Two row groups: the one that is collected and its copy in one piece."""
        return 2 * self.row_group_bytes

    def check(self, schema: pa.Schema) -> None:
        check_columns(schema, self.name)
        for column in self.partition_by:
            if column not in schema.names:
                raise GraphError(f"{self.name}: no column {column!r} to partition by; there are {schema.names}")
            kind = schema.field(column).type
            if not can_name_a_folder(kind):
                raise GraphError(
                    f"{self.name}: cannot partition by {column!r}", expected="text, integer or date", got=kind
                )
        written = _written_schema(schema, self.partition_by)
        if not written.names:
            raise GraphError(f"{self.name}: every column is in partition_by; nothing is left to write")
        for field in written:
            try:
                pq.ParquetWriter(pa.BufferOutputStream(), pa.schema([field])).close()
            except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
                raise GraphError(f"{self.name}: column {field.name!r} is {field.type}: {error}") from None

    def open(self, context: Context, schema: pa.Schema) -> Sink:
        if not context.resuming:
            self.check_target()
        return _ParquetSink(self, schema, context)

    def check_target(self) -> None:
        folder = Path(self.path)
        if folder.exists() and not folder.is_dir():
            raise GraphError(f"{self.name}: {self.path} is a file; a folder is needed")
        ours = set(interrupted_commit(folder, _LABEL).values())
        for name in results(folder):
            if name in ours:
                continue
            if not self.overwrite:
                raise GraphError(
                    f"{self.name}: there are results already, such as {folder / name}; "
                    "remove them, choose another folder, or say overwrite=True"
                )
            if part_place(name) is None:
                raise GraphError(
                    f"{self.name}: {folder / name} is not a file that overwrite=True may replace; choose another folder"
                )


class _ParquetSink(Sink):
    """`_files` holds the complete files that are not known to be published, with their rows and bytes."""

    def __init__(self, spec: Parquet, schema: pa.Schema, context: Context) -> None:
        self._spec = spec
        self._folder = Path(spec.path)
        self._written = _written_schema(schema, spec.partition_by)
        self._groups = RowGroups(schema, spec.row_group_rows, spec.row_group_bytes)
        self._parts: dict[str, Part] = {}
        self._files: dict[str, list[int]] = {}
        self._numbers: dict[str, int] = {}
        self._rows = 0
        self._rows_stored = -1
        self._replaced = not spec.overwrite
        self._begun = False
        self._staging = Staging(self._folder, _LABEL, context)

    def write(self, batch: pa.RecordBatch) -> None:
        self._begin()
        self._rows += batch.num_rows
        for group in self._groups.add(batch):
            self._write(group)

    def commit(self) -> None:
        """Everything becomes visible. Where the last snapshot has all of it, what is visible already stays so."""
        self._finish_files()
        if not self._numbers and not self._spec.partition_by:
            self._part("").write(self._written.empty_table())
            self._finish_files()
        if self._at_checkpoints and self._rows_stored == self._rows:
            self._publish(self._files)
            self._staging.remove()
        else:
            names = [name for name in self._files if not self._at_checkpoints or self._staging.holds(name)]
            self._staging.commit({name: name for name in names}, replaced=self._older(self._files))

    def abort(self) -> None:
        self._abandon_parts()
        self._staging.abort()

    def detach(self) -> None:
        self._abandon_parts()
        self._staging.detach()

    def snapshot(self) -> State:
        """Rows taken, and the files that hold those which are not published. Ends the files that are open."""
        self._finish_files()
        self._parts.clear()
        self._staging.store(self._files)
        self._rows_stored = self._rows
        return {
            "rows": self._rows,
            "files": {name: list(size) for name, size in self._files.items()},
            "numbers": dict(self._numbers),
            "replaced": self._replaced,
        }

    def restore(self, state: State) -> None:
        """Go on behind a snapshot. Raises RunError if its files are gone, or results of others or of later are there."""
        if self._begun:
            raise RunError(f"{self._spec.name}: restore comes before the first batch")
        files: Mapping[str, list[int]] = state["files"]
        for name, (rows, nbytes) in files.items():
            staged = self._staging.folder / name
            published = self._at_checkpoints and not self._staging.holds(name)
            if not stands(self._folder / name if published else staged, rows, nbytes):
                raise RunError(
                    f"{self._spec.name}: {staged} should hold {rows} rows in {nbytes} bytes of the interrupted run; "
                    "start it anew"
                )
        if state["replaced"]:
            self._refuse_strangers(files, state["numbers"])
        self._staging.keep_only(files)
        self._begun = True
        self._files = {name: list(size) for name, size in files.items()}
        self._numbers, self._replaced = dict(state["numbers"]), bool(state["replaced"])
        self._rows = self._rows_stored = int(state["rows"])

    def is_committed(self, state: State) -> bool:
        """Whether `state`, the last snapshot of a run, is all visible, with nothing staged and nothing left to replace."""
        files: Mapping[str, list[int]] = state["files"]
        names = set(files)
        if self._staging.staged() or not all(stands(self._folder / name, *size) for name, size in files.items()):
            return False
        if not state["numbers"] and not self._spec.partition_by:
            names.add(part_name("", 0))
            if not stands(self._folder / part_name("", 0), rows=0):
                return False
        return bool(state["replaced"]) or names.issuperset(results(self._folder))

    def publish(self, state: State) -> None:
        """Let the files of a stored `state` appear, with ``publish="checkpoint"``; again is the same as once."""
        if self._at_checkpoints:
            self._publish(state["files"])

    @property
    def _at_checkpoints(self) -> bool:
        return self._spec.publish == "checkpoint"

    def _publish(self, files: Mapping[str, list[int]]) -> None:
        names = list(files)
        staged = [name for name in names if self._staging.holds(name)]
        found = set(staged)
        if gone := [name for name in names if name not in found and not (self._folder / name).exists()]:
            raise RunError(f"{self._spec.name}: {self._staging.folder / gone[0]} was removed while the run was writing")
        older = self._older({*names, *self._files})
        if staged or older:
            self._staging.publish(staged, replaced=older)
        self._replaced = True
        for name in names:
            self._files.pop(name, None)

    def _older(self, ours: Collection[str]) -> list[str]:
        """Results of a run before, which are to go: also one with a name of `ours`, where ours is still staged."""
        if self._replaced:
            return []
        return [name for name in results(self._folder) if name not in ours or self._staging.holds(name)]

    def _refuse_strangers(self, files: Mapping[str, list[int]], numbers: Mapping[str, int]) -> None:
        for name in results(self._folder):
            folder, number = part_place(name) or ("", -1)
            published = self._at_checkpoints and 0 <= number < numbers.get(folder, 0)
            if not published or self._staging.holds(name):
                raise RunError(
                    f"{self._spec.name}: {self._folder / name} is not from this run up to this checkpoint; "
                    "resume from the last checkpoint, or remove it"
                )

    def _abandon_parts(self) -> None:
        for part in self._parts.values():
            part.abandon()

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._staging.keep_only(())

    def _finish_files(self) -> None:
        self._begin()
        rest = self._groups.flush()
        if rest is not None:
            self._write(rest)
        for part in self._parts.values():
            part.finish()

    def _write(self, group: pa.RecordBatch) -> None:
        for folder, rows in partitions(group, self._spec.partition_by):
            self._part(folder).write(rows)

    def _part(self, folder: str) -> Part:
        part = self._parts.get(folder)
        if part is None:
            if len(self._parts) == _MOST_PARTITIONS:
                raise RunError(
                    f"{self._spec.name}: more than {_MOST_PARTITIONS} partitions; "
                    f"choose a column with fewer values than {self._spec.partition_by}"
                )
            part = self._parts[folder] = Part(
                self._staging,
                self._written,
                folder,
                self._files,
                self._numbers,
                rows_per_file=self._spec.rows_per_file,
                compression=self._spec.compression,
            )
        return part


def _written_schema(schema: pa.Schema, partition_by: Sequence[str]) -> pa.Schema:
    return pa.schema([field for field in schema if field.name not in partition_by], metadata=schema.metadata)
