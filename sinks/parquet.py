"""A folder of Parquet files.

The same rows give the same files, byte for byte, however they were batched on the way: rows are cut into row groups and
files by their number and size alone, and written in one layout (`_row_groups`, `_canonical`). Files get their names when
the run commits; until then they are in a hidden folder that readers skip.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..pipeline.context import Context
from ..pipeline.errors import GraphError, RunError
from ..pipeline.operator import State
from ..pipeline.sink import Sink, SinkSpec
from ._canonical import check_columns
from ._row_groups import RowGroups
from ._staging import Staging, interrupted_commit, sync

__all__ = ["Parquet"]

_LABEL = "parquet"
#: Each partition of a run has a file open.
_MOST_PARTITIONS = 512
_OUR_NAME = re.compile(r"([^/]+=[^/]*/)*part-[0-9]{5,}\.parquet")
_COMPRESSIONS = (None, "zstd", "snappy", "lz4", "gzip")


@dataclass(frozen=True)
class Parquet(SinkSpec):
    """Write rows to ``path/part-00000.parquet`` and on, or to ``path/COLUMN=VALUE/part-00000.parquet``.

    A file ends after `rows_per_file` rows, a row group after `row_group_rows` rows or with the row that makes its values
    `row_group_bytes` large; with `partition_by` (text, integer, boolean or date columns, Hive layout) these groups are
    counted over all partitions together, so that memory stays bounded. `compression` is ``"zstd"``, ``"snappy"``,
    ``"lz4"``, ``"gzip"`` or None. A folder that holds Parquet files already is refused unless `overwrite`, which replaces
    them when the run commits. A run without rows writes one empty file, or none with `partition_by`.

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
            if not _can_name_a_folder(kind):
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
        self.check_target()
        return _ParquetSink(self, schema)

    def check_target(self) -> None:
        folder = Path(self.path)
        if folder.exists() and not folder.is_dir():
            raise GraphError(f"{self.name}: {self.path} is a file; a folder is needed")
        ours = set(interrupted_commit(folder, _LABEL).values())
        for path in _results(folder):
            if path.relative_to(folder).as_posix() in ours:
                continue
            if not self.overwrite:
                raise GraphError(
                    f"{self.name}: there are results already, such as {path}; "
                    "remove them, choose another folder, or say overwrite=True"
                )
            if _OUR_NAME.fullmatch(path.relative_to(folder).as_posix()) is None:
                raise GraphError(
                    f"{self.name}: {path} is not a file that overwrite=True may replace; choose another folder"
                )


class _ParquetSink(Sink):
    def __init__(self, spec: Parquet, schema: pa.Schema) -> None:
        self._spec = spec
        self._schema = schema
        self._written = _written_schema(schema, spec.partition_by)
        self._groups = RowGroups(schema, spec.row_group_rows, spec.row_group_bytes)
        self._parts: dict[str, _Part] = {}
        self._files: dict[str, int] = {}
        self._rows = 0
        self._begun = False
        self._staging = Staging(Path(spec.path), _LABEL)

    def write(self, batch: pa.RecordBatch) -> None:
        self._begin()
        self._rows += batch.num_rows
        for group in self._groups.add(batch):
            self._write(group)

    def commit(self) -> None:
        self._finish_files()
        if not self._files and not self._spec.partition_by:
            self._part("").write(self._written.empty_table())
            self._finish_files()
        replaced = _results(Path(self._spec.path)) if self._spec.overwrite else ()
        self._staging.commit({name: name for name in self._files}, replaced=list(replaced))

    def abort(self) -> None:
        for part in self._parts.values():
            part.abandon()
        self._staging.abort()

    def snapshot(self) -> State:
        """Rows taken and the files that hold them. Ends the files that are open, so a run with snapshots has more files."""
        self._finish_files()
        for name in self._files:
            sync(self._staging.path(name))
        return {"rows": self._rows, "files": dict(self._files)}

    def restore(self, state: State) -> None:
        """Go on behind a snapshot. Raises RunError if the files it names are not there any more."""
        if self._begun:
            raise RunError(f"{self._spec.name}: restore comes before the first batch")
        files: Mapping[str, int] = state["files"]
        for name, rows in files.items():
            path = self._staging.folder / name
            if not path.exists() or pq.read_metadata(path).num_rows != rows:
                raise RunError(
                    f"{self._spec.name}: {path} should hold {rows} rows of the interrupted run; start it anew"
                )
        self._staging.keep_only(files)
        self._begun = True
        self._files, self._rows = dict(files), state["rows"]

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
        for folder, rows in _partitions(group, self._spec.partition_by):
            self._part(folder).write(rows)

    def _part(self, folder: str) -> _Part:
        part = self._parts.get(folder)
        if part is None:
            if len(self._parts) == _MOST_PARTITIONS:
                raise RunError(
                    f"{self._spec.name}: more than {_MOST_PARTITIONS} partitions; "
                    f"choose a column with fewer values than {self._spec.partition_by}"
                )
            part = self._parts[folder] = _Part(self._spec, self._written, self._staging, folder, self._files)
        return part


class _Part:
    """The files of one partition, one after the other."""

    def __init__(self, spec: Parquet, schema: pa.Schema, staging: Staging, folder: str, files: dict[str, int]) -> None:
        self._spec, self._schema, self._staging, self._folder, self._files = spec, schema, staging, folder, files
        self._number = sum(1 for name in files if name.rpartition("/")[0] == folder)
        self._writer: Any = None
        self._name = ""
        self._rows = 0

    def write(self, table: pa.Table) -> None:
        start = 0
        while start < table.num_rows or self._writer is None:
            if self._writer is None:
                self._start()
            rows = min(table.num_rows - start, self._spec.rows_per_file - self._rows)
            if rows:
                self._writer.write_table(table.slice(start, rows), row_group_size=rows)
            self._rows += rows
            start += rows
            if self._rows == self._spec.rows_per_file:
                self.finish()
                if start == table.num_rows:
                    return

    def _start(self) -> None:
        self._name = f"{self._folder}/part-{self._number:05d}.parquet".lstrip("/")
        self._number += 1
        self._rows = 0
        self._writer = pq.ParquetWriter(
            self._staging.path(self._name),
            self._schema,
            compression=self._spec.compression or "none",
            use_dictionary=[field.name for field in self._schema if _repeats(field.type)],
            write_statistics=[field.name for field in self._schema if not _is_tensor(field.type)],
        )

    def finish(self) -> None:
        """Complete the open file, if there is one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._files[self._name] = self._rows

    def abandon(self) -> None:
        """Let go of the open file; it is about to be removed."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _results(folder: Path) -> Iterator[Path]:
    """Parquet files in `folder` that are not hidden, at any depth."""
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "_")))
        for name in sorted(files):
            if name.endswith(".parquet") and not name.startswith((".", "_")):
                yield Path(root) / name


def _written_schema(schema: pa.Schema, partition_by: Sequence[str]) -> pa.Schema:
    return pa.schema([field for field in schema if field.name not in partition_by], metadata=schema.metadata)


def _repeats(kind: pa.DataType) -> bool:
    """Whether Parquet's own dictionary encoding is worth trying."""
    types = pa.types
    return any(test(kind) for test in (types.is_dictionary, types.is_string, types.is_large_string, types.is_int16))


def _is_tensor(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.FixedShapeTensorType) or pa.types.is_nested(kind)


def _can_name_a_folder(kind: pa.DataType) -> bool:
    types = pa.types
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    tests = (types.is_string, types.is_large_string, types.is_integer, types.is_boolean, types.is_date)
    return any(test(kind) for test in tests)


def _partitions(group: pa.RecordBatch, columns: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each partition with its folder, partitions in order of first appearance, rows in their own order."""
    table = pa.Table.from_batches([group])
    if not columns:
        yield "", table
        return
    codes = np.zeros(len(table), np.int64)
    for column in columns:
        encoded = group.column(column)
        if isinstance(encoded, pa.DictionaryArray):
            encoded = encoded.dictionary_decode()
        encoded = encoded.dictionary_encode(null_encoding="encode")
        _, codes = np.unique(codes * len(encoded.dictionary) + np.asarray(encoded.indices), return_inverse=True)
    _, firsts = np.unique(codes, return_index=True)
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes)
    ends = np.cumsum(sizes)
    rest = table.drop_columns(list(columns))
    for code in np.argsort(firsts):
        names = (
            f"{quote(column, safe='')}={_folder_name(group.column(column)[int(firsts[code])])}" for column in columns
        )
        yield "/".join(names), rest.take(pa.array(order[ends[code] - sizes[code] : ends[code]]))


def _folder_name(value: Any) -> str:
    plain = value.as_py()
    if plain is None:
        return "__HIVE_DEFAULT_PARTITION__"
    return quote(str(plain).lower() if isinstance(plain, bool) else str(plain), safe="")
