"""The files of a checkpoint store: on a local disk, where a crash may tear them, or anywhere fsspec reaches.

Both keep folders of files below one root, two levels deep. `put` may leave anything behind when it fails; `publish` makes
one file appear whole or not at all.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .durable import sync
from .errors import CheckpointError

__all__ = ["CheckpointFiles", "LocalFiles", "RemoteFiles", "files_at"]

_LOCK = ".lock"


class CheckpointFiles(ABC):
    """What a store asks of the place where it is. A file that is not there raises FileNotFoundError."""

    @abstractmethod
    def folders(self) -> list[str]:
        """Names of the folders below the root; none if there is no root."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Names of the files in `folder`; none if it is not there."""

    @abstractmethod
    def read(self, folder: str, name: str) -> bytes: ...

    @abstractmethod
    def put(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Write files into `folder`, which is made if need be; they are safe on return."""

    @abstractmethod
    def publish(self, folder: str, name: str, data: bytes) -> None:
        """Write one file, all or nothing; it is safe on return."""

    @abstractmethod
    def remove(self, folder: str, name: str) -> None:
        """Remove a file if it is there."""

    @abstractmethod
    def remove_folder(self, folder: str) -> None:
        """Remove `folder` if it is empty."""

    def lock(self) -> None:
        """Keep others from writing here. Raises CheckpointError if one does already."""

    def unlock(self) -> None:
        """Let others write here. May be called more than once."""


class LocalFiles(CheckpointFiles):
    """A folder of this machine. The lock goes with the process, however it ends."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock: int | None = None

    def folders(self) -> list[str]:
        try:
            return [path.name for path in self.root.iterdir() if path.is_dir()]
        except FileNotFoundError:
            return []

    def names(self, folder: str) -> list[str]:
        try:
            return [path.name for path in (self.root / folder).iterdir()]
        except FileNotFoundError:
            return []

    def read(self, folder: str, name: str) -> bytes:
        return (self.root / folder / name).read_bytes()

    def put(self, folder: str, files: Mapping[str, bytes]) -> None:
        target = self.root / folder
        target.mkdir(parents=True, exist_ok=True)
        sync(self.root)
        for name, data in files.items():
            (target / name).write_bytes(data)
            sync(target / name)
        sync(target)

    def publish(self, folder: str, name: str, data: bytes) -> None:
        self.put(folder, {f"{name}.tmp": data})
        target = self.root / folder
        (target / f"{name}.tmp").replace(target / name)
        sync(target)

    def remove(self, folder: str, name: str) -> None:
        (self.root / folder / name).unlink(missing_ok=True)

    def remove_folder(self, folder: str) -> None:
        with suppress(OSError):
            (self.root / folder).rmdir()

    def lock(self) -> None:
        import fcntl

        self.root.mkdir(parents=True, exist_ok=True)
        path = self.root / _LOCK
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_same(handle, path):
                    self._lock = handle
                    return
            except BlockingIOError:
                os.close(handle)
                raise CheckpointError(
                    f"another run is using the checkpoints in {self.root}; wait for it, or name another folder"
                ) from None
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)  # removed by the run that held it while this one was opening it

    def unlock(self) -> None:
        if self._lock is not None:
            with suppress(OSError):
                (self.root / _LOCK).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None


class RemoteFiles(CheckpointFiles):
    """Any fsspec file system. Objects appear whole there, so publishing is putting; nothing is locked."""

    def __init__(self, system: Any, root: str) -> None:
        self.system, self.root = system, root.rstrip("/")

    def folders(self) -> list[str]:
        return self._list(self.root, "directory")

    def names(self, folder: str) -> list[str]:
        return self._list(f"{self.root}/{folder}", "file")

    def _list(self, path: str, kind: str) -> list[str]:
        self.system.invalidate_cache()
        try:
            entries = self.system.ls(path, detail=True)
        except FileNotFoundError:
            return []
        names = [entry["name"].rstrip("/").rpartition("/")[2] for entry in entries if entry["type"] == kind]
        return [name for name in names if name]

    def read(self, folder: str, name: str) -> bytes:
        data: bytes = self.system.cat_file(f"{self.root}/{folder}/{name}")
        return data

    def put(self, folder: str, files: Mapping[str, bytes]) -> None:
        self.system.makedirs(f"{self.root}/{folder}", exist_ok=True)
        self.system.pipe({f"{self.root}/{folder}/{name}": data for name, data in files.items()})

    def publish(self, folder: str, name: str, data: bytes) -> None:
        self.system.makedirs(f"{self.root}/{folder}", exist_ok=True)
        self.system.pipe_file(f"{self.root}/{folder}/{name}", data)

    def remove(self, folder: str, name: str) -> None:
        with suppress(FileNotFoundError):
            self.system.rm_file(f"{self.root}/{folder}/{name}")

    def remove_folder(self, folder: str) -> None:
        with suppress(OSError, NotImplementedError):  # object stores have no folders
            self.system.rmdir(f"{self.root}/{folder}")


def files_at(url: str | os.PathLike[str], options: Mapping[str, Any]) -> CheckpointFiles:
    """The files at a path or an fsspec URL. Raises CheckpointError for a URL that nothing here can reach."""
    text = os.fspath(url)
    if "://" not in text and "::" not in text:
        return LocalFiles(Path(text).absolute())
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem

    try:
        system, root = url_to_fs(text, **options)
    except Exception as error:  # whatever the library of that file system raises
        raise CheckpointError(f"checkpoints cannot be kept at {text}: {error}") from error
    return LocalFiles(Path(root)) if isinstance(system, LocalFileSystem) else RemoteFiles(system, root)


def _is_same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
