"""Where bad records go: counted exactly, kept within limits, and written to a folder when one is given.

Records arrive from many threads in any order, so nothing that is reported may depend on the order of arrival. In
memory the *first records in sorted order* that fit the limits are kept, whichever came first. On disk every record is
appended as it comes, so that a crash loses none, and the files are sorted when the run ends.
"""

from __future__ import annotations

import heapq
import os
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from . import _quarantine_files as files
from ._quarantine_files import QuarantinedRecord
from .context import BadRecord

__all__ = ["Identity", "Quarantine", "QuarantinedRecord", "read_quarantine"]

#: What a record is known by when it comes again.
Identity: TypeAlias = tuple[Any, ...]

#: What a record takes in memory beside its bytes and texts.
_OVERHEAD = 400


def read_quarantine(path: str | os.PathLike[str]) -> list[QuarantinedRecord]:
    """All records in the folder `path`, run by run, sorted within a run; their bytes are read when asked for.

    Files of a run that is still going on or was killed are read up to their last complete line.
    Raises FileNotFoundError for a folder that does not exist and FormatError for a damaged line of a finished run.
    """
    return files.read_quarantine(Path(path))


class Quarantine:
    """Collects the bad records of a run: ``Context(step, quarantine=collector.add)``. Thread-safe.

    In memory it keeps up to `keep` records of at most `max_bytes` in all; with `path`, all of them also go to files in
    that folder, where `read_quarantine` finds them. `counts` (by step) and `total` are exact whatever was kept.
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
        self._cutoff: files.SortKey | None = None
        self._files: files.RunFiles | None = None
        self._closed = False
        #: What is put aside already and comes again after a crash; the same row may fail twice.
        self._known: Counter[Identity] = Counter()

    @property
    def total(self) -> int:
        """How many records were put aside."""
        with self._lock:
            return sum(self.counts.values())

    def add(self, step: str, record: BadRecord) -> None:
        """Put `record` of `step` aside. Raises ValueError after `close`."""
        digest = files.data_digest(record.data)
        key = files.sort_key(step, record, digest)
        with self._lock:
            if self._closed:
                raise ValueError(f"this quarantine is closed; {record.operation} at {record.place} came too late")
            same = _identity(key)
            self.taken(same)
            if self._known[same]:  # put aside before the crash, and met again since
                self._known[same] -= 1
                return
            self.counts[step] = self.counts.get(step, 0) + 1
            if self.path is not None:
                if self._files is None:
                    self._files = files.RunFiles(self.path)
                self._files.append(step, record, digest)
            if self._cutoff is None or key < self._cutoff:
                self._keep_first(_Last(key, step, record))

    def _keep_first(self, entry: _Last) -> None:
        heapq.heappush(self._kept, entry)
        self._kept_bytes += entry.nbytes
        while self._kept and (len(self._kept) > self._keep or self._kept_bytes > self._max_bytes):
            # Nothing behind a record that did not fit is kept, or the order of arrival would show.
            dropped = heapq.heappop(self._kept)
            self._kept_bytes -= dropped.nbytes
            self._cutoff = dropped.key

    def records(self) -> list[tuple[str, BadRecord]]:
        """The records kept in memory as (step, record), sorted by step, position in the source and place."""
        with self._lock:
            return [(entry.step, entry.record) for entry in sorted(self._kept, reverse=True)]

    def snapshot(self) -> dict[str, Any]:
        """What a run that goes on from a checkpoint needs: the counts, and the file or the records kept in memory.

        Records of rows behind the checkpoint may be among them: they are known again when they come again.
        """
        with self._lock:
            kept = [{"step": entry.step, **asdict(entry.record)} for entry in self._kept] if self.path is None else []
            name = None if self._files is None else self._files.name
            return {"counts": dict(self.counts), "kept": kept, "file": name}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on behind a `snapshot`, before the first record."""
        if state["file"] is not None and self.path is not None:
            self._files = files.RunFiles(self.path, state["file"])
            for step, record, digest in self._files.records():
                self._remember(step, record, digest)
            return
        for item in state["kept"]:
            record = BadRecord(**{name: value for name, value in item.items() if name != "step"})
            self._remember(item["step"], record, files.data_digest(record.data))

    def taken(self, identity: Identity) -> None:
        """Called, one thread at a time, with what each record that comes is known by."""

    def expect(self, identities: Iterable[Identity]) -> None:
        """These are put aside already and will come once more: they are not counted again."""
        with self._lock:
            self._known.update(identities)

    def empty(self) -> None:
        """Forget all records: the run begins anew."""
        with self._lock:
            self.counts.clear()
            self._kept.clear()
            self._kept_bytes, self._cutoff = 0, None
            if self._files is not None:
                self._files.empty()

    def _remember(self, step: str, record: BadRecord, digest: str) -> None:
        key = files.sort_key(step, record, digest)
        self._known[_identity(key)] += 1
        self.counts[step] = self.counts.get(step, 0) + 1
        self._keep_first(_Last(key, step, record))

    def detach(self) -> None:
        """Close the files as they are: a run that goes on from a checkpoint takes them over."""
        with self._lock:
            self._closed = True
            if self._files is not None:
                self._files.leave()
                self._files = None

    def close(self) -> None:
        """Sort the files and give them their final names. May be called again; no record may come afterwards."""
        with self._lock:
            self._closed = True
            if self._files is not None:
                self._files.finish()
                self._files = None


def _identity(key: files.SortKey) -> Identity:
    """What a record is known by when it comes again: how its row lay in memory, and so its bytes, may have changed."""
    step, unnumbered, seq, _, place, operation, *_ = key
    return key if unnumbered else (step, seq, place, operation)


class _Last:
    """An entry of a heap whose top is the last in order."""

    __slots__ = ("key", "nbytes", "record", "step")

    def __init__(self, key: files.SortKey, step: str, record: BadRecord) -> None:
        self.key, self.step, self.record = key, step, record
        self.nbytes = _OVERHEAD + len(record.data) + len(record.place) + len(record.operation) + len(record.error)

    def __lt__(self, other: _Last) -> bool:
        return bool(self.key > other.key)
