"""The files of a quarantine folder: appended while a run goes on, sorted when it ends.

``run-00000.ndjson`` has one line a record (step, place, operation, error, seq, where its bytes are and their hash, the
version that put it aside), ``run-00000.blobs`` the bytes, end to end. While the run goes on both carry ``.open`` before the
ending.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

from ..version import __version__
from .context import BadRecord
from .errors import FormatError

__all__ = ["QuarantinedRecord", "RunFiles", "SortKey", "data_digest", "read_quarantine", "sort_key"]

_NAME = re.compile(r"run-([0-9]{5})(\.open)?\.ndjson")
_NUMBERS = re.compile(r"([0-9]{1,18})")
_DECODER = f"penstock {__version__}"

#: Orders records by step, then position in the source, then place (numbers in it by value), then the rest.
SortKey = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class QuarantinedRecord:
    """A record found in a quarantine folder. `name` (``"00000:17"``: run and number) tells it from all others.

    `decoder` is the version that put it aside (``"penstock 0.1.0"``); None in folders written before it was kept.
    """

    name: str
    step: str
    place: str
    operation: str
    error: str
    seq: int | None
    nbytes: int
    digest: str
    blobs: Path
    offset: int
    decoder: str | None = None

    def data(self) -> bytes:
        """The bytes of the record, read from the folder now. Raises FormatError if they are not what was written."""
        with self.blobs.open("rb") as file:
            return _bytes_of(file, self)

    def record(self) -> BadRecord:
        """The record as it was put aside."""
        return BadRecord(self.place, self.operation, self.error, self.data(), self.seq)


def sort_key(step: str, record: BadRecord, digest: str) -> SortKey:
    """The place of a record in every listing; `digest` is that of its bytes."""
    natural = tuple((int(part), "") if i % 2 else (0, part) for i, part in enumerate(_NUMBERS.split(record.place)))
    seq = record.seq
    return (step, seq is None, seq or 0, natural, record.place, record.operation, record.error, digest)


def data_digest(data: bytes) -> str:
    """What tells the bytes of two records apart."""
    return xxhash.xxh3_128_hexdigest(data)


def read_quarantine(folder: Path) -> list[QuarantinedRecord]:
    """All records in `folder`, run by run, sorted within a run."""
    found: list[QuarantinedRecord] = []
    for index in sorted(folder.iterdir()):
        match = _NAME.fullmatch(index.name)
        if match is None or (match[2] and _final(folder, match[1]).exists()):
            continue
        records = list(_lines(index, finished=match[2] is None))
        if match[2]:
            records.sort(key=_sort_key)
        found += [replace(record, name=f"{match[1]}:{number}") for number, record in enumerate(records)]
    return found


class RunFiles:
    """The two files of one run, open for appending. A run takes the next number that is free in the folder.

    With `name`, that of an interrupted run whose files are taken over: what was written half is cut off.
    """

    def __init__(self, folder: Path, name: str | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if name is not None:
            self._take_over(folder, name)
            return
        taken = [int(match[1]) for entry in folder.iterdir() if (match := _NAME.fullmatch(entry.name))]
        number = max(taken, default=-1) + 1
        while True:
            self._final = _final(folder, f"{number:05d}")
            self._open = self._final.with_suffix(".open.ndjson")
            try:
                self._index: BinaryIO = self._open.open("xb")
            except FileExistsError:  # another process was faster
                number += 1
                continue
            if not self._final.exists():
                break
            self._index.close()
            self._open.unlink()
            number += 1
        self._blobs: BinaryIO = self._open.with_suffix(".blobs").open("w+b")
        self._offset = 0

    def _take_over(self, folder: Path, name: str) -> None:
        self._final = _final(folder, name)
        self._open = self._final.with_suffix(".open.ndjson")
        if self._final.exists() and not self._open.exists():
            # the run was interrupted after it had sorted its files
            self._final.with_suffix(".blobs").rename(self._open.with_suffix(".blobs"))
            self._final.rename(self._open)
        self._open.touch()
        self._open.with_suffix(".blobs").touch()
        whole = list(_lines(self._open, finished=False))
        self._blobs = self._open.with_suffix(".blobs").open("r+b")
        self._offset = self._blobs.seek(0, 2)
        partial = self._open.with_suffix(".part")
        partial.write_bytes(
            b"".join(_line(r.step, _without_data(r), r.digest, r.offset, r.nbytes, r.decoder) for r in whole)
        )
        partial.replace(self._open)
        self._index = self._open.open("ab")

    @property
    def name(self) -> str:
        """The number that tells the files of this run from those of others."""
        return self._final.stem.removeprefix("run-")

    def records(self) -> Iterator[tuple[str, BadRecord, str]]:
        """What was written so far: step, record and digest of its bytes."""
        for item in list(_lines(self._open, finished=False)):
            yield item.step, item.record(), item.digest

    def leave(self) -> None:
        """Close the files without sorting them."""
        self._index.close()
        self._blobs.close()

    def empty(self) -> None:
        """Forget all records: the run begins anew."""
        self._index.truncate(0)
        self._index.seek(0)
        self._blobs.truncate(0)
        self._offset = self._blobs.seek(0)

    def append(self, step: str, record: BadRecord, digest: str) -> None:
        """Write `record` so that it survives this process: its bytes first, then the line that names them."""
        self._blobs.write(record.data)
        self._blobs.flush()
        self._index.write(_line(step, record, digest, self._offset, len(record.data), _DECODER))
        self._index.flush()
        self._offset += len(record.data)

    def finish(self) -> None:
        """Rewrite both files in order, then let them appear under their final names."""
        self._index.close()
        records = sorted(_lines(self._open, finished=True), key=_sort_key)
        index_path, blobs_path = (self._final.with_suffix(f".sorted.{ending}") for ending in ("ndjson", "blobs"))
        offset = 0
        with self._blobs as unsorted, index_path.open("wb") as index, blobs_path.open("wb") as blobs:
            for item in records:
                data = _bytes_of(unsorted, item)
                blobs.write(data)
                index.write(_line(item.step, _without_data(item), item.digest, offset, len(data), item.decoder))
                offset += len(data)
        blobs_path.replace(self._final.with_suffix(".blobs"))
        index_path.replace(self._final)
        self._open.unlink()
        self._open.with_suffix(".blobs").unlink()


def _final(folder: Path, number: str) -> Path:
    return folder / f"run-{number}.ndjson"


def _without_data(item: QuarantinedRecord) -> BadRecord:
    return BadRecord(item.place, item.operation, item.error, b"", item.seq)


def _sort_key(item: QuarantinedRecord) -> SortKey:
    return sort_key(item.step, _without_data(item), item.digest)


def _line(step: str, record: BadRecord, digest: str, offset: int, nbytes: int, decoder: str | None) -> bytes:
    fields = {
        "step": step,
        "seq": record.seq,
        "place": record.place,
        "operation": record.operation,
        "error": record.error,
        "nbytes": nbytes,
        "offset": offset,
        "xxh3_128": digest,
        "decoder": decoder,
    }
    return json.dumps(fields).encode() + b"\n"


def _lines(index: Path, *, finished: bool) -> Iterator[QuarantinedRecord]:
    blobs = index.with_suffix(".blobs")
    size = blobs.stat().st_size if blobs.exists() else 0
    with index.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("the line does not end")
                record = _parse(json.loads(line), blobs)
                if record.offset < 0 or record.nbytes < 0 or record.offset + record.nbytes > size:
                    raise ValueError(f"bytes {record.offset}+{record.nbytes} are outside {blobs.name} of {size}")
            except (ValueError, KeyError, TypeError) as error:
                if not finished:
                    return  # the end that a killed process did not get to write
                raise FormatError(f"{index}, line {number}: not a quarantined record ({error})") from error
            yield record


def _parse(line: Any, blobs: Path) -> QuarantinedRecord:
    step, place, operation, error, digest = (line[n] for n in ("step", "place", "operation", "error", "xxh3_128"))
    nbytes, offset, seq, decoder = line["nbytes"], line["offset"], line["seq"], line.get("decoder")
    if not all(isinstance(text, str) for text in (step, place, operation, error, digest, decoder or "")):
        raise TypeError("a text is missing")
    if not all(isinstance(number, int) for number in (nbytes, offset, 0 if seq is None else seq)):
        raise TypeError("a number is missing")
    return QuarantinedRecord("", step, place, operation, error, seq, nbytes, digest, blobs, offset, decoder)


def _bytes_of(file: BinaryIO, item: QuarantinedRecord) -> bytes:
    file.seek(item.offset)
    data = file.read(item.nbytes)
    if data_digest(data) != item.digest:
        raise FormatError(f"{item.blobs}: the {item.nbytes} bytes at {item.offset} are not those of {item.place}")
    return data
