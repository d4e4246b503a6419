"""One Arrow IPC file (``.arrow``, also known as Feather 2): what readers map into memory without decoding.

The same rows give the same file, byte for byte, however they were batched on the way. Dictionaries grow as new values
appear, in order of first appearance, and are written as deltas.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..pipeline.context import Context
from ..pipeline.errors import GraphError, RunError
from ..pipeline.operator import State
from ..pipeline.sink import Sink, SinkSpec
from ._canonical import check_columns
from ._row_groups import RowGroups
from ._staging import Staging, refuse_existing, refuse_stranger

__all__ = ["ArrowIpc"]

_MERGED = "merged.arrow"


@dataclass(frozen=True)
class ArrowIpc(SinkSpec):
    """Write rows to one Arrow file at `path`, in batches of `batch_rows` rows or of `batch_bytes`, what comes first.

    `compression` is None (readable in place), ``"zstd"`` or ``"lz4"``. A file that exists is refused unless `overwrite`,
    which replaces it when the run commits. Every type but unions, views and dictionaries inside other types.
    """

    path: str | os.PathLike[str]
    _: KW_ONLY
    batch_rows: int = 65_536
    batch_bytes: int = 64 << 20
    compression: str | None = None
    overwrite: bool = False

    kind: ClassVar[str] = "ipc"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", os.fspath(self.path))
        for limit in ("batch_rows", "batch_bytes"):
            if getattr(self, limit) < 1:
                raise GraphError(f"ArrowIpc: {limit} must be at least 1, got {getattr(self, limit)}")
        if self.compression not in (None, "zstd", "lz4"):
            raise GraphError(f"ArrowIpc: compression must be None, 'zstd' or 'lz4', got {self.compression!r}")

    @property
    def name(self) -> str:
        return f"{self.path} (arrow)"

    def state_bound(self, schema: pa.Schema) -> int:
        """Two batches of the file: the one that is collected and its copy in one piece."""
        return 2 * self.batch_bytes

    def check(self, schema: pa.Schema) -> None:
        check_columns(schema, self.name)

    def open(self, context: Context, schema: pa.Schema) -> Sink:
        if not context.resuming:
            self.check_target()
        return _IpcSink(self, schema, context)

    def check_target(self) -> None:
        refuse_existing(Path(self.path), self.name, overwrite=self.overwrite)


class _IpcSink(Sink):
    """Writes one piece; a snapshot ends it and starts another. Pieces are joined when the run commits."""

    def __init__(self, spec: ArrowIpc, schema: pa.Schema, context: Context) -> None:
        self._spec, self._schema = spec, schema
        self._final = Path(spec.path)
        self._pieces: dict[str, list[int]] = {}  # name to rows and bytes
        self._writer: _Writer | None = None
        self._begun = False
        self._staging = Staging(self._final.parent, self._final.name, context)

    def write(self, batch: pa.RecordBatch) -> None:
        self._begin()
        if self._writer is None:
            self._writer = _Writer(self._spec, self._schema, self._staging.path(self._next_name()))
        self._writer.write(batch)

    def commit(self) -> None:
        self._end_piece()
        staged = next(iter(self._pieces), _MERGED)
        if len(self._pieces) != 1:
            staged = _MERGED
            self._writer = _Writer(self._spec, self._schema, self._staging.path(staged))
            for name in self._pieces:
                with pa.memory_map(str(self._staging.path(name))) as source, pa.ipc.open_file(source) as reader:
                    for index in range(reader.num_record_batches):
                        self._writer.write(reader.get_batch(index))
            self._writer.close()
            self._writer = None
        self._staging.commit({staged: self._final.name})

    def abort(self) -> None:
        self._abandon()
        self._staging.abort()

    def detach(self) -> None:
        self._abandon()
        self._staging.detach()

    def snapshot(self) -> State:
        """Rows taken and the pieces that hold them."""
        self._end_piece()
        self._staging.store(self._pieces)
        rows = sum(rows for rows, _ in self._pieces.values())
        return {"rows": rows, "pieces": {name: list(size) for name, size in self._pieces.items()}}

    def restore(self, state: State) -> None:
        """Go on behind a snapshot. Raises RunError if its pieces are gone or another result is there."""
        if self._begun:
            raise RunError(f"{self._spec.name}: restore comes before the first batch")
        pieces: Mapping[str, list[int]] = state["pieces"]
        for name, (rows, nbytes) in pieces.items():
            path = self._staging.folder / name
            if not path.exists() or path.stat().st_size != nbytes or _rows_in(path) != rows:
                raise RunError(
                    f"{self._spec.name}: {path} should hold {rows} rows in {nbytes} bytes of the interrupted run; "
                    "start it anew"
                )
        refuse_stranger(self._final, self._spec.name, overwrite=self._spec.overwrite)
        self._staging.keep_only(pieces)
        self._begun = True
        self._pieces = {name: list(size) for name, size in pieces.items()}

    def is_committed(self, state: State) -> bool:
        """Whether the file has the rows of `state`, the last snapshot of a run, and nothing is staged."""
        return not self._staging.staged() and _rows_in(self._final) == state["rows"]

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._staging.keep_only(())

    def _next_name(self) -> str:
        return f"piece-{len(self._pieces):05d}.arrow"

    def _end_piece(self) -> None:
        self._begin()
        if self._writer is not None:
            self._writer.close()
            name = self._next_name()
            self._pieces[name] = [self._writer.rows, self._staging.path(name).stat().st_size]
            self._writer = None

    def _abandon(self) -> None:
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None


class _Writer:
    """One Arrow file of rows in canonical batches."""

    def __init__(self, spec: ArrowIpc, schema: pa.Schema, path: Path) -> None:
        self._groups = RowGroups(schema, spec.batch_rows, spec.batch_bytes)
        self._known = {
            index: pa.array([], field.type.value_type)
            for index, field in enumerate(schema)
            if isinstance(field.type, pa.DictionaryType)
        }
        options = pa.ipc.IpcWriteOptions(compression=spec.compression, emit_dictionary_deltas=True)
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._file, schema, options=options)
        self.rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        self.rows += batch.num_rows
        for group in self._groups.add(batch):
            self._write(group)

    def close(self) -> None:
        rest = self._groups.flush()
        if rest is not None:
            self._write(rest)
        self._writer.close()
        self._file.close()

    def abandon(self) -> None:
        """Let go of the file, which is of no use any more. Raises nothing: its disk may be full."""
        with suppress(OSError, pa.ArrowException):
            self._file.close()

    def _write(self, group: pa.RecordBatch) -> None:
        for index in self._known:
            group = group.set_column(index, group.schema.field(index), self._numbered(index, group.column(index)))
        self._writer.write_batch(group)

    def _numbered(self, index: int, array: Any) -> pa.Array:
        """`array` with the numbers that its values have in this file; new values get the next ones."""
        known, values = self._known[index], array.dictionary
        numbers = pc.index_in(values, value_set=known)
        fresh = np.asarray(numbers.is_null())
        if fresh.any():
            numbers = np.where(fresh, len(known) + np.cumsum(fresh) - 1, np.asarray(numbers.fill_null(0)))
            self._known[index] = known = pa.concat_arrays([known, values.filter(pa.array(fresh))])
        if not len(known):
            # An empty dictionary cannot grow in an Arrow file; one with an entry that no row refers to can.
            self._known[index] = known = pa.nulls(1, values.type)
        renumbered = pa.array(np.asarray(numbers).astype(np.int64)).take(array.indices)
        try:
            indices = renumbered.cast(array.type.index_type)
        except pa.ArrowInvalid:
            raise RunError(
                f"a dictionary column has {len(known)} different values, more than {array.type.index_type} can number; "
                "give it a wider index type"
            ) from None
        return pa.DictionaryArray.from_arrays(indices, known)


def _rows_in(path: Path) -> int:
    """Rows of an Arrow file, of which one column is decompressed to count them; -1 if it is none."""
    try:
        options = pa.ipc.IpcReadOptions(included_fields=[0])
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source, options=options) as reader:
            return sum(reader.get_batch(index).num_rows for index in range(reader.num_record_batches))
    except (OSError, pa.ArrowException):
        return -1
