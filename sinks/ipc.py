"""One Arrow IPC file (``.arrow``, also known as Feather 2): what readers map into memory without decoding.

The same rows give the same file, byte for byte, however they were batched on the way. Dictionaries grow as new values
appear, in order of first appearance, and are written as deltas.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
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
from ._staging import Staging, refuse_existing, sync

__all__ = ["ArrowIpc"]


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
        self.check_target()
        return _IpcSink(self, schema)

    def check_target(self) -> None:
        refuse_existing(Path(self.path), self.name, overwrite=self.overwrite)


class _IpcSink(Sink):
    """Writes one piece; a snapshot ends it and starts another. Pieces are joined when the run commits."""

    def __init__(self, spec: ArrowIpc, schema: pa.Schema) -> None:
        self._spec, self._schema = spec, schema
        self._final = Path(spec.path)
        self._pieces: dict[str, int] = {}
        self._writer: _Writer | None = None
        self._begun = False
        self._staging = Staging(self._final.parent, self._final.name)

    def write(self, batch: pa.RecordBatch) -> None:
        self._begin()
        if self._writer is None:
            self._writer = _Writer(self._spec, self._schema, self._staging.path(self._next_name()))
        self._writer.write(batch)

    def commit(self) -> None:
        self._end_piece()
        if len(self._pieces) != 1:
            merged = _Writer(self._spec, self._schema, self._staging.path("merged.arrow"))
            for name in self._pieces:
                with pa.memory_map(str(self._staging.path(name))) as source, pa.ipc.open_file(source) as reader:
                    for index in range(reader.num_record_batches):
                        merged.write(reader.get_batch(index))
            merged.close()
            self._pieces = {"merged.arrow": merged.rows}
        self._staging.commit(dict.fromkeys(self._pieces, self._final.name))

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._staging.abort()

    def snapshot(self) -> State:
        """Rows taken and the pieces that hold them."""
        self._end_piece()
        for name in self._pieces:
            sync(self._staging.path(name))
        return {"rows": sum(self._pieces.values()), "pieces": dict(self._pieces)}

    def restore(self, state: State) -> None:
        """Go on behind a snapshot. Raises RunError if the pieces it names are not there any more."""
        if self._begun:
            raise RunError(f"{self._spec.name}: restore comes before the first batch")
        pieces: Mapping[str, int] = state["pieces"]
        for name, rows in pieces.items():
            if _rows_in(self._staging.folder / name) != rows:
                raise RunError(
                    f"{self._spec.name}: {self._staging.folder / name} should hold {rows} rows of the interrupted run; "
                    "start it anew"
                )
        self._staging.keep_only(pieces)
        self._begun = True
        self._pieces = dict(pieces)

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
            self._pieces[self._next_name()] = self._writer.rows
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
    if not path.exists():
        return -1
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
            return sum(reader.get_batch(index).num_rows for index in range(reader.num_record_batches))
    except pa.ArrowInvalid:
        return -1
