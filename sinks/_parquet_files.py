"""The files of a Parquet folder: writing them part by part, and telling which are there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ._staging import Staging

__all__ = ["Part", "part_name", "part_place", "results", "stands"]

_OUR_NAME = re.compile(r"((?:[^/]+=[^/]*/)*)part-([0-9]{5,})\.parquet")


def part_name(folder: str, number: int) -> str:
    """The name of a part; `folder` is that of its partition, or empty."""
    return f"{folder}/part-{number:05d}.parquet".lstrip("/")


def part_place(name: str) -> tuple[str, int] | None:
    """The folder and number of a part, from its name; None if `part_name` did not make it."""
    match = _OUR_NAME.fullmatch(name)
    return (match[1].rstrip("/"), int(match[2])) if match else None


def results(folder: Path) -> Iterator[str]:
    """Names, relative to `folder`, of the Parquet files in it that are not hidden, at any depth."""
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "_")))
        for name in sorted(files):
            if name.endswith(".parquet") and not name.startswith((".", "_")):
                yield (Path(root) / name).relative_to(folder).as_posix()


def stands(path: Path, rows: int, nbytes: int | None = None) -> bool:
    """Whether `path` is a Parquet file of so many rows and, if given, bytes."""
    try:
        if nbytes is not None and path.stat().st_size != nbytes:
            return False
        return bool(pq.read_metadata(path).num_rows == rows)
    except (OSError, pa.ArrowException):
        return False


class Part:
    """The files of one partition, one after the other.

    A file that is complete is entered in `files` with its rows and bytes, and `numbers` holds the number of the next.
    """

    def __init__(
        self,
        staging: Staging,
        schema: pa.Schema,
        folder: str,
        files: dict[str, list[int]],
        numbers: dict[str, int],
        *,
        rows_per_file: int,
        compression: str | None,
    ) -> None:
        self._staging, self._schema, self._folder = staging, schema, folder
        self._files, self._numbers = files, numbers
        self._rows_per_file, self._compression = rows_per_file, compression
        self._writer: Any = None
        self._file: Any = None
        self._name = ""
        self._rows = 0

    def write(self, table: pa.Table) -> None:
        """Add rows as one row group, or as more where a file is full. A table without rows makes an empty file."""
        start = 0
        while start < table.num_rows or self._writer is None:
            if self._writer is None:
                self._start()
            rows = min(table.num_rows - start, self._rows_per_file - self._rows)
            if rows:
                self._writer.write_table(table.slice(start, rows), row_group_size=rows)
            self._rows += rows
            start += rows
            if self._rows == self._rows_per_file:
                self.finish()
                if start == table.num_rows:
                    return

    def _start(self) -> None:
        number = self._numbers.get(self._folder, 0)
        self._numbers[self._folder] = number + 1
        self._name, self._rows = part_name(self._folder, number), 0
        self._file = pa.OSFile(str(self._staging.path(self._name)), "wb")
        self._writer = pq.ParquetWriter(
            self._file,
            self._schema,
            compression=self._compression or "none",
            use_dictionary=[field.name for field in self._schema if _repeats(field.type)],
            write_statistics=[field.name for field in self._schema if not _is_tensor(field.type)],
        )

    def finish(self) -> None:
        """Complete the open file, if there is one."""
        if self._writer is not None:
            self._writer.close()
            self._file.close()
            self._writer = None
            self._files[self._name] = [self._rows, (self._staging.folder / self._name).stat().st_size]

    def abandon(self) -> None:
        """Let go of the open file, which is of no use any more. Raises nothing: its disk may be full."""
        if self._writer is not None:
            for part in (self._writer, self._file):
                with suppress(OSError, pa.ArrowException):
                    part.close()
            self._writer = None


def _repeats(kind: pa.DataType) -> bool:
    """Whether Parquet's own dictionary encoding is worth trying."""
    types = pa.types
    return any(test(kind) for test in (types.is_dictionary, types.is_string, types.is_large_string, types.is_int16))


def _is_tensor(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.FixedShapeTensorType) or pa.types.is_nested(kind)
