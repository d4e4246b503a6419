"""Where bad records go: counted exactly, kept within limits, and written to a folder when one is given.

Records arrive from many threads in any order, so nothing that is reported may depend on the order of arrival. In
memory the *first records in sorted order* that fit the limits are kept, whichever came first. On disk every record is
appended as it comes, so that a crash loses none, and the files are sorted when the run ends.

A run writes two files, ``run-00000.ndjson`` (one line a record: step, place, operation, error, seq, and where its bytes
are) and ``run-00000.blobs`` (the bytes, end to end). While the run goes on they carry a ``.open`` before the ending; a
later run takes the next number.
"""

from __future__ import annotations

import heapq
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .context import BadRecord
from .errors import FormatError

__all__ = ["Quarantine", "QuarantinedRecord", "read_quarantine"]

_NAME = re.compile(r"run-(\d{5})(\.open)?\.ndjson")
_DIGITS = re.compile(r"(\d+)")
#: What a record takes in memory beside its bytes and texts.
_OVERHEAD = 200


class Quarantine:
    """Collects bad records of a run: ``Context(..., quarantine=collector.add)``. Thread-safe.

    In memory it keeps up to `keep` records of at most `max_bytes` in all; with `path`, all of them also go to files in
    that folder. `counts` (by step) and `total` are exact whatever was kept.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, keep: int = 10_000, max_bytes: int = 64 << 20
    ) -> None:
        if keep < 0 or max_bytes < 0:
            raise ValueError(f"limits are not negative: {keep=}, {max_bytes=}")
        self.path = None if path is None else Path(path)
        self.counts: dict[str, int] = {}
        self._keep, self._max_bytes = keep, max_bytes
        self._lock = threading.Lock()
        self._kept: list[_Last] = []
        self._kept_bytes = 0
        self._cutoff: _Key | None = None
        self._files: _Files | None = None
        self._closed = False

    @property
    def total(self) -> int:
        """How many records were put aside."""
        return sum(self.counts.values())

    def add(self, step: str, record: BadRecord) -> None:
        """Put `record` of `step` aside."""
        key = _key(step, record)
        with self._lock:
            if self._closed:
                raise ValueError(f"this quarantine is closed; {record.operation} at {record.place} came too late")
            self.counts[step] = self.counts.get(step, 0) + 1
            if self.path is not None:
                if self._files is None:
                    self._files = _Files(self.path)
                self._files.append(step, record)
            if self._cutoff is not None and key >= self._cutoff:
                return
            entry = _Last(key, step, record)
            heapq.heappush(self._kept, entry)
            self._kept_bytes += entry.nbytes
            while self._kept and (len(self._kept) > self._keep or self._kept_bytes > self._max_bytes):
                # Nothing behind a record that did not fit is kept, or the order of arrival would show.
                dropped = heapq.heappop(self._kept)
                self._kept_bytes -= dropped.nbytes
                self._cutoff = dropped.key

    def records(self) -> list[tuple[str, BadRecord]]:
        """The records kept in memory as (step, record), sorted by step, position and place."""
        with self._lock:
            return [(entry.step, entry.record) for entry in sorted(self._kept, key=lambda entry: entry.key)]

    def close(self) -> None:
        """Sort the files and give them their final names. No record may come afterwards."""
        with self._lock:
            self._closed = True
            if self._files is not None:
                self._files.finish()
                self._files = None


@dataclass(frozen=True, slots=True)
class QuarantinedRecord:
    """A record found in a quarantine folder. `name` is what ``penstock quarantine show`` takes."""

    name: str
    step: str
    place: str
    operation: str
    error: str
    seq: int | None
    nbytes: int
    _blobs: Path
    _offset: int

    def data(self) -> bytes:
        """The bytes of the record, read from the folder now. Raises FormatError if they are not all there."""
        with self._blobs.open("rb") as file:
            return _read(file, self._blobs, self._offset, self.nbytes)

    def record(self) -> BadRecord:
        """As the operation reported it."""
        return BadRecord(self.place, self.operation, self.error, self.data(), self.seq)


def read_quarantine(path: str | os.PathLike[str]) -> list[QuarantinedRecord]:
    """All records in the folder `path`, run by run, sorted within a run; their bytes are read when asked for.

    Files of a run that is still going on or was killed are read up to their last complete line.
    Raises FileNotFoundError for a folder that does not exist and FormatError for a damaged line of a finished run.
    """
    folder = Path(path)
    found = []
    for index in sorted(folder.iterdir()):
        match = _NAME.fullmatch(index.name)
        if match is not None:
            records = list(_lines(index, finished=match[2] is None))
            if match[2] is not None:
                records.sort(key=lambda item: _order(item.step, item.seq, item.place, item.operation, item.error))
            found += [_renamed(record, f"{match[1]}:{number}") for number, record in enumerate(records)]
    return found


def _renamed(record: QuarantinedRecord, name: str) -> QuarantinedRecord:
    r = record
    return QuarantinedRecord(name, r.step, r.place, r.operation, r.error, r.seq, r.nbytes, r._blobs, r._offset)


def _lines(index: Path, *, finished: bool) -> Iterator[QuarantinedRecord]:
    blobs = index.with_suffix(".blobs")
    size = blobs.stat().st_size if blobs.exists() else 0
    with index.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("the line does not end")
                record = _parse(json.loads(line), blobs)
                if record._offset < 0 or record.nbytes < 0 or record._offset + record.nbytes > size:
                    raise ValueError(f"bytes {record._offset}+{record.nbytes} are outside {blobs.name} of {size}")
            except (ValueError, KeyError, TypeError) as error:
                if not finished:
                    return
                raise FormatError(f"{index}, line {number}: not a quarantined record ({error})") from error
            yield record


def _parse(line: Any, blobs: Path) -> QuarantinedRecord:
    texts = [line[name] for name in ("step", "place", "operation", "error")]
    numbers = [line[name] for name in ("nbytes", "offset")]
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(number, int) for number in numbers):
        raise TypeError("a field has the wrong type")
    seq = line["seq"]
    if seq is not None and not isinstance(seq, int):
        raise TypeError("seq is not a number")
    step, place, operation, error = texts
    return QuarantinedRecord("", step, place, operation, error, seq, numbers[0], blobs, numbers[1])


def _read(file: BinaryIO, path: Path, offset: int, nbytes: int) -> bytes:
    file.seek(offset)
    data = file.read(nbytes)
    if len(data) != nbytes:
        raise FormatError(f"{path}: {nbytes} bytes expected at {offset}, found {len(data)}")
    return data


_Key = tuple[Any, ...]


def _order(step: str, seq: int | None, place: str, operation: str, error: str) -> _Key:
    natural = tuple((int(part), "") if i % 2 else (0, part) for i, part in enumerate(_DIGITS.split(place)))
    return (step, seq is None, seq or 0, natural, place, operation, error)


def _key(step: str, record: BadRecord) -> _Key:
    return (*_order(step, record.seq, record.place, record.operation, record.error), record.data)


class _Last:
    """An entry of a heap whose top is the last in order."""

    __slots__ = ("key", "nbytes", "record", "step")

    def __init__(self, key: _Key, step: str, record: BadRecord) -> None:
        self.key, self.step, self.record = key, step, record
        self.nbytes = _OVERHEAD + len(record.data) + len(record.place) + len(record.operation) + len(record.error)

    def __lt__(self, other: _Last) -> bool:
        return bool(self.key > other.key)


class _Files:
    """The two open files of one run."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        taken = [int(match[1]) for entry in folder.iterdir() if (match := _NAME.fullmatch(entry.name))]
        number = max(taken, default=-1) + 1
        while True:
            self._final = folder / f"run-{number:05d}.ndjson"
            self._open = self._final.with_suffix(".open.ndjson")
            try:
                self._index = self._open.open("x+b")
                break
            except FileExistsError:  # another process was faster
                number += 1
        self._blobs = self._open.with_suffix(".blobs").open("w+b")
        self._offset = 0

    def append(self, step: str, record: BadRecord) -> None:
        self._blobs.write(record.data)
        self._blobs.flush()
        self._index.write(_line(step, record, self._offset))
        self._index.flush()
        self._offset += len(record.data)

    def finish(self) -> None:
        """Rewrite both files in order, then let them appear under their final names."""
        records = list(_lines(self._open, finished=True))
        by_bytes: Mapping[str, BinaryIO] = {"blobs": self._blobs}

        def bytes_of(item: QuarantinedRecord) -> bytes:
            return _read(by_bytes["blobs"], item._blobs, item._offset, item.nbytes)

        records.sort(key=lambda item: _order(item.step, item.seq, item.place, item.operation, item.error))
        sorted_index, sorted_blobs = (self._final.with_suffix(f".sorted.{end}") for end in ("ndjson", "blobs"))
        offset = 0
        with sorted_index.open("wb") as index, sorted_blobs.open("wb") as blobs:
            for item in records:
                data = bytes_of(item)
                record = BadRecord(item.place, item.operation, item.error, data, item.seq)
                index.write(_line(item.step, record, offset))
                blobs.write(data)
                offset += len(data)
        self._index.close()
        self._blobs.close()
        sorted_blobs.replace(self._final.with_suffix(".blobs"))
        sorted_index.replace(self._final)
        self._open.unlink()
        self._open.with_suffix(".blobs").unlink()


def _line(step: str, record: BadRecord, offset: int) -> bytes:
    fields = {
        "step": step,
        "seq": record.seq,
        "place": record.place,
        "operation": record.operation,
        "error": record.error,
        "nbytes": len(record.data),
        "offset": offset,
    }
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
