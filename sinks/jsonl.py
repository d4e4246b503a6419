"""JSON lines: one object a row, for people and for tools that know nothing of Arrow."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import pyarrow as pa

from ..pipeline.context import Context
from ..pipeline.errors import GraphError, RunError
from ..pipeline.operator import State
from ..pipeline.schema import row_bytes
from ..pipeline.sink import Sink, SinkSpec
from ._json_values import has_json_form, json_values
from ._staging import Staging, refuse_existing, refuse_stranger

__all__ = ["JsonLines"]

_STAGED = "lines"
#: Rows are turned into Python objects in steps of about this many bytes of Arrow data.
_STEP_BYTES = 4 << 20
_STEP_ROWS = 8_192
_GZIP_CHUNK = 1 << 20


@dataclass(frozen=True)
class JsonLines(SinkSpec):
    """Write rows to one text file at `path`, compressed if the name ends in ``.gz``.

    Timestamps become ISO 8601 text with every digit of their unit (``2024-05-01T13:30:00.000000001Z``; without ``Z`` if
    the column has no zone), durations integers in their unit, dates, times and decimals text, bytes base64, lists and
    tensors nested arrays, structs objects, maps objects if their keys are text and arrays of ``{"key", "value"}``
    otherwise. NaN and infinities become null, which JSON has no number for. Integers are written in full; a reader that
    holds numbers as doubles rounds those above 2**53.

    A file that exists is refused unless `overwrite`, which replaces it when the run commits.
    """

    path: str | os.PathLike[str]
    _: KW_ONLY
    overwrite: bool = False

    kind: ClassVar[str] = "jsonl"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", os.fspath(self.path))

    @property
    def name(self) -> str:
        return f"{self.path} (json lines)"

    def state_bound(self, schema: pa.Schema) -> int:
        """The objects and the text of one step of rows."""
        return 16 * max(_STEP_BYTES, row_bytes(schema))

    def check(self, schema: pa.Schema) -> None:
        if len(set(schema.names)) < len(schema.names):
            raise GraphError(f"{self.name}: two columns have one name; rename one before writing", got=schema.names)
        for field in schema:
            if not has_json_form(field.type):
                raise GraphError(f"{self.name}: column {field.name!r} is {field.type}, which has no form in JSON")

    def check_target(self) -> None:
        refuse_existing(Path(self.path), self.name, overwrite=self.overwrite)

    def open(self, context: Context, schema: pa.Schema) -> Sink:
        if not context.resuming:
            self.check_target()
        return _JsonLinesSink(self, schema, context)


class _JsonLinesSink(Sink):
    def __init__(self, spec: JsonLines, schema: pa.Schema, context: Context) -> None:
        import msgspec

        self._spec, self._schema = spec, schema
        self._final = Path(spec.path)
        self._encode = msgspec.json.Encoder().encode_lines
        self._step = max(1, min(_STEP_ROWS, _STEP_BYTES // max(1, row_bytes(schema))))
        self._rows = 0
        self._file: BinaryIO | None = None
        self._gzip = _Gzip() if self._final.name.endswith(".gz") else None
        self._staging = Staging(self._final.parent, self._final.name, context)

    def write(self, batch: pa.RecordBatch) -> None:
        file = self._opened()
        for start in range(0, batch.num_rows, self._step):
            part = batch.slice(start, self._step)
            columns = map(json_values, part.columns)
            names = self._schema.names
            text = self._encode([dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)])
            for piece in (text,) if self._gzip is None else self._gzip.add(text):
                file.write(piece)
            self._rows += part.num_rows

    def commit(self) -> None:
        self._finish()
        self._close()
        self._staging.commit({_STAGED: self._final.name})

    def abort(self) -> None:
        self._abandon()
        self._staging.abort()

    def detach(self) -> None:
        self._abandon()
        self._staging.detach()

    def snapshot(self) -> State:
        """Rows taken and the length of the file that holds them."""
        file = self._finish()
        file.flush()
        os.fsync(file.fileno())
        self._staging.store([_STAGED])
        return {"rows": self._rows, "bytes": file.tell()}

    def restore(self, state: State) -> None:
        """Go on behind a snapshot. Raises RunError if the file is shorter than it was then, or another result is there."""
        if self._file is not None:
            raise RunError(f"{self._spec.name}: restore comes before the first batch")
        path, nbytes = self._staging.folder / _STAGED, int(state["bytes"])
        if not path.exists() or path.stat().st_size < nbytes:
            raise RunError(
                f"{self._spec.name}: {path} should hold {nbytes} bytes of the interrupted run; start it anew"
            )
        refuse_stranger(self._final, self._spec.name, overwrite=self._spec.overwrite)
        self._file = path.open("r+b")
        self._file.truncate(nbytes)
        self._file.seek(nbytes)
        self._rows = int(state["rows"])

    def is_committed(self, state: State) -> bool:
        """Whether the file is as long as in `state`, the last snapshot of a run, and nothing is staged."""
        if self._staging.staged():
            return False
        return self._final.is_file() and self._final.stat().st_size == state["bytes"]

    def _opened(self) -> BinaryIO:
        if self._file is None:
            self._file = self._staging.path(_STAGED).open("wb")
        return self._file

    def _finish(self) -> BinaryIO:
        file = self._opened()
        if self._gzip is not None:
            file.write(self._gzip.finish(even_if_empty=file.tell() == 0))
        return file

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _abandon(self) -> None:
        with suppress(OSError):  # its disk may be full
            self._close()


class _Gzip:
    """A gzip stream without a time stamp, fed in chunks of one size, so that equal text gives equal bytes."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._stream: Any = None

    def add(self, data: bytes) -> Iterator[bytes]:
        self._waiting += data
        while len(self._waiting) >= _GZIP_CHUNK:
            yield self._compressor().compress(bytes(self._waiting[:_GZIP_CHUNK]))
            del self._waiting[:_GZIP_CHUNK]

    def finish(self, *, even_if_empty: bool) -> bytes:
        """End the stream; what comes later makes another one behind it."""
        if self._stream is None and not self._waiting and not even_if_empty:
            return b""
        stream = self._compressor()
        ended: bytes = stream.compress(bytes(self._waiting)) + stream.flush()
        self._waiting.clear()
        self._stream = None
        return ended

    def _compressor(self) -> Any:
        if self._stream is None:
            self._stream = zlib.compressobj(6, zlib.DEFLATED, 31)
        return self._stream
