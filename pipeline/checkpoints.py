"""Where checkpoints are kept: a folder for each, its parts first and its manifest last.

::

    checkpoint-000000000007/0000-read.part     the state of a step
    checkpoint-000000000007/0001-window.part
    checkpoint-000000000007/manifest.jsonl     with the size and checksum of every part, and its own

A snapshot without a manifest does not exist; one that has a manifest but not all its parts is damaged, and the one
before it is used. So a crash at any moment leaves either the old snapshot or the new one, and what it began is removed when
the next one is complete. Files that the store did not make are neither read nor removed.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from xxhash import xxh3_128_hexdigest

from ._checkpoint_files import files_at
from .errors import CheckpointError

__all__ = ["CheckpointStore", "Snapshot"]

log = logging.getLogger("penstock")

_FORMAT, _VERSION = "penstock checkpoint", 1
_MANIFEST = "manifest.jsonl"
_FOLDER = re.compile(r"checkpoint-(\d{12,18})", re.ASCII)
_OWN = re.compile(r"\d{4,}-[\w.~%-]*\.part|manifest\.jsonl(\.tmp)?", re.ASCII)


@dataclass(frozen=True)
class Snapshot:
    """One checkpoint, whole and checked: its number, what was said about it, and the parts by step id."""

    number: int
    manifest: Mapping[str, Any]
    _parts: Mapping[str, bytes] = field(repr=False)

    @property
    def steps(self) -> tuple[str, ...]:
        """The ids that have a part."""
        return tuple(self._parts)

    def part(self, step: str) -> bytes:
        """What was written for `step`. Raises CheckpointError if nothing was."""
        try:
            return self._parts[step]
        except KeyError:
            raise CheckpointError(
                f"checkpoint {self.number} has no part for {step!r}, only {list(self._parts)}"
            ) from None


class CheckpointStore:
    """The checkpoints of one run, at a local path or any fsspec URL; `storage_options` go to fsspec.

    The newest `keep` are kept. A local folder is locked until `close` (or the death of the process), so that two runs
    cannot use it; ``read_only=True`` takes no lock and makes nothing. Raises CheckpointError if another run has the folder,
    or the URL cannot be reached.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        keep: int = 2,
        storage_options: Mapping[str, Any] = MappingProxyType({}),
        *,
        read_only: bool = False,
    ) -> None:
        if keep < 1:
            raise ValueError(f"a store keeps at least one checkpoint, not {keep}")
        self.url, self.keep, self._read_only = os.fspath(url), keep, read_only
        self._damaged: dict[int, str] = {}
        self._files = files_at(url, storage_options)
        if not read_only:
            try:
                self._files.lock()
            except OSError as error:
                raise CheckpointError(f"checkpoints cannot be kept at {self.url}: {error}") from error

    def __enter__(self) -> CheckpointStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def numbers(self) -> list[int]:
        """Numbers of the snapshots that have a manifest, ascending."""
        try:
            return sorted(number for number, folder in self._folders() if _MANIFEST in self._files.names(folder))
        except OSError as error:
            raise CheckpointError(f"the checkpoints at {self.url} cannot be listed: {error}") from error

    def latest(self) -> Snapshot | None:
        """The newest snapshot that is complete and intact, None if there never was one; damaged ones are logged.

        Raises CheckpointError if all are damaged, or if one cannot be read for another reason than damage.
        """
        damaged: list[str] = []
        for number in reversed(self.numbers()):
            try:
                snapshot = self._load(number)
            except _Damaged as error:
                damaged.append(f"{_folder(number)}: {error}")
                self._damaged[number] = str(error)
                continue
            except OSError as error:
                raise CheckpointError(f"checkpoint {number} at {self.url} cannot be read: {error}") from error
            for text in damaged:
                log.warning(
                    "damaged checkpoint at %s/%s; going on from checkpoint %d before it", self.url, text, number
                )
            return snapshot
        if damaged:
            raise CheckpointError(
                f"all checkpoints at {self.url} are damaged ({'; '.join(damaged)}); begin anew elsewhere"
            )
        return None

    def write(self, number: int, manifest: Mapping[str, Any], parts: Mapping[str, bytes]) -> None:
        """Store snapshot `number`, higher than all before, all or nothing; then remove what is older than the newest `keep`.

        `manifest` is plain JSON, `parts` the bytes of each step. Raises CheckpointError if it cannot be stored; the
        snapshot before it then still stands. Old ones that cannot be removed are logged, no more.
        """
        self._check_writable()
        if not 0 <= number < 10**18:
            raise ValueError(f"a checkpoint has a number from 0 up, not {number}")
        newer = [old for old in self.numbers() if old >= number and old not in self._damaged]
        if newer:
            raise CheckpointError(
                f"{self.url} has checkpoint {newer[-1]} already, so none of number {number} can be added"
            )
        files = {_file(index, step): (step, data) for index, (step, data) in enumerate(parts.items())}
        about = {
            step: {"file": name, "bytes": len(data), "xxh3_128": xxh3_128_hexdigest(data)}
            for name, (step, data) in files.items()
        }
        text = _sealed({"number": number, "parts": about, "manifest": dict(manifest)})
        folder = _folder(number)
        try:
            self._remove(folder)  # what a run that died, or damage, left under this number
            if files:
                self._files.put(folder, {name: data for name, (_, data) in files.items()})
            self._files.publish(folder, _MANIFEST, text)
        except Exception as error:
            raise CheckpointError(f"checkpoint {number} cannot be stored at {self.url}: {error}") from error
        self._damaged.pop(number, None)
        try:
            self._collect(number)
        except Exception as error:
            log.warning("old checkpoints at %s cannot be removed: %s", self.url, error)

    def clear(self) -> None:
        """Remove all checkpoints, and nothing that the store did not make."""
        self._check_writable()
        try:
            for _, folder in sorted(self._folders(), reverse=True):
                self._remove(folder)
        except Exception as error:
            raise CheckpointError(f"the checkpoints at {self.url} cannot be removed: {error}") from error
        self._damaged.clear()

    def close(self) -> None:
        """Let another run use the place. May be called more than once."""
        self._read_only = True
        self._files.unlock()

    def _check_writable(self) -> None:
        if self._read_only:
            raise CheckpointError(f"the checkpoints at {self.url} are closed, or open for reading only")

    def _folders(self) -> list[tuple[int, str]]:
        found = ((_FOLDER.fullmatch(name), name) for name in self._files.folders())
        return [(int(match[1]), name) for match, name in found if match and name == _folder(int(match[1]))]

    def _collect(self, newest: int) -> None:
        complete = [number for number in self.numbers() if number <= newest and number not in self._damaged]
        kept = complete[-self.keep :]
        for number, folder in sorted(self._folders()):
            if number in self._damaged or (number < newest and number not in kept):
                self._remove(folder)
                self._damaged.pop(number, None)

    def _remove(self, folder: str) -> None:
        own = [name for name in self._files.names(folder) if _OWN.fullmatch(name)]
        for name in sorted(own, key=lambda name: name != _MANIFEST):  # without its manifest it is gone already
            self._files.remove(folder, name)
        self._files.remove_folder(folder)

    def _load(self, number: int) -> Snapshot:
        folder = _folder(number)
        try:
            about = _opened(self._files.read(folder, _MANIFEST), number)
            parts = {step: self._part(folder, step, **entry) for step, entry in about["parts"].items()}
            return Snapshot(number, about["manifest"], parts)
        except FileNotFoundError as error:
            raise _Damaged(f"{error.filename or error} is missing") from error
        except (TypeError, KeyError, AttributeError) as error:
            raise _Damaged(f"its manifest is not of version {_VERSION}: {error}") from error

    def _part(self, folder: str, step: str, *, file: str, bytes: int, xxh3_128: str) -> bytes:
        if not _OWN.fullmatch(file) or not file.endswith(".part"):
            raise _Damaged(f"the part of {step!r} is said to be in {file!r}")
        data = self._files.read(folder, file)
        if len(data) != bytes or xxh3_128_hexdigest(data) != xxh3_128:
            raise _Damaged(f"{file} ({len(data)} bytes) is not what was written for {step!r} ({bytes} bytes)")
        return data


class _Damaged(Exception):
    """A snapshot that has a manifest and cannot be used."""


def _folder(number: int) -> str:
    return f"checkpoint-{number:012d}"


def _file(index: int, step: str) -> str:
    return f"{index:04d}-{quote(step, safe='')[:120]}.part"


def _sealed(about: Mapping[str, Any]) -> bytes:
    body = json.dumps(about, separators=(",", ":"))
    head = {"format": _FORMAT, "version": _VERSION, "xxh3_128": xxh3_128_hexdigest(body.encode())}
    return f"{json.dumps(head)}\n{body}\n".encode()


def _opened(data: bytes, number: int) -> dict[str, Any]:
    try:
        head, body, rest = data.split(b"\n")
        about: dict[str, Any] = json.loads(body)
        described = json.loads(head)
    except (ValueError, RecursionError) as error:
        raise _Damaged("its manifest is not readable") from error
    if described != {"format": _FORMAT, "version": _VERSION, "xxh3_128": xxh3_128_hexdigest(body)} or rest:
        raise _Damaged("its manifest is changed, or of another version of Penstock")
    if about["number"] != number:
        raise _Damaged(f"its manifest is of checkpoint {about['number']}")
    return about
