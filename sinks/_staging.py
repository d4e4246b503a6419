"""Files are written in a hidden folder beside their final place and renamed when all of them are complete.

The folder is locked by the run that writes it. A run that was killed leaves the folder but not the lock, so the next run
finds what was staged and either goes on behind it (after a checkpoint) or starts afresh. While files are being renamed
the folder holds a list of them; whoever finds the list undoes what an interrupted commit had done.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from ..pipeline.errors import GraphError, RunError

__all__ = ["Staging", "interrupted_commit", "refuse_existing", "sync"]

_LOCK = ".lock"
_LIST = ".commit.json"


def _folder(target: Path, label: str) -> Path:
    return target / f".penstock-staging-{label}"


def interrupted_commit(target: Path, label: str) -> Mapping[str, str]:
    """What a commit that never ended was about to rename, staged name to final name; empty if there was none."""
    try:
        listed = json.loads((_folder(target, label) / _LIST).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {str(staged): str(final) for staged, final in listed.items()}


def refuse_existing(path: Path, name: str, *, overwrite: bool) -> None:
    """Raise GraphError if the sink `name` may not write the single file `path`."""
    if path.is_dir():
        raise GraphError(f"{name}: {path} is a folder; a file name is needed")
    if path.exists() and not overwrite and not interrupted_commit(path.parent, path.name):
        raise GraphError(f"{name}: the file exists; remove it, choose another name, or say overwrite=True")


class Staging:
    """The staging folder of one sink. `target` is the folder that holds the final names."""

    def __init__(self, target: Path, label: str) -> None:
        self.target, self.folder = target, _folder(target, label)
        self._label = label
        self._made = [parent for parent in (target, *target.parents) if not parent.exists()]
        self._lock = self._take_lock()
        self._undo()

    def _take_lock(self) -> int:
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(lock).st_nlink:
                    return lock
                os.close(lock)  # the run before removed the folder between our open and our lock
            except BlockingIOError:
                os.close(lock)
                raise RunError(
                    f"{self.target}: another run is writing here; wait for it, or give each sink a path of its own"
                ) from None
            except BaseException:
                os.close(lock)
                raise

    def staged(self) -> list[str]:
        """The files in the folder, relative to it."""
        files = (path for path in self.folder.rglob("*") if path.is_file() and path.name not in (_LOCK, _LIST))
        return sorted(path.relative_to(self.folder).as_posix() for path in files)

    def path(self, name: str) -> Path:
        """Where the file `name` is staged; the folder it is in exists afterwards."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def keep_only(self, names: Iterable[str]) -> None:
        """Remove every staged file but `names`."""
        wanted = set(names)
        for name in self.staged():
            if name not in wanted:
                (self.folder / name).unlink()

    def commit(self, files: Mapping[str, str], *, replaced: Iterable[Path] = ()) -> None:
        """Rename staged files to final names (relative to `target`), delete `replaced` files that are not among them."""
        finals = {self.target / final for final in files.values()}
        for staged in files:
            sync(self.folder / staged)
        listing = self.folder / _LIST
        partial = self.folder / (_LIST + ".part")
        partial.write_text(json.dumps(dict(files)))
        sync(partial)
        partial.replace(listing)
        sync(self.folder)
        for staged, final in files.items():
            (self.target / final).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / staged).replace(self.target / final)
        for path in replaced:
            if path not in finals:
                path.unlink(missing_ok=True)
        for folder in sorted({path.parent for path in finals} | {self.target}):
            sync(folder)
        listing.unlink()
        self._remove()

    def abort(self) -> None:
        """Remove everything that was staged, and every folder made for it. Does nothing after a commit."""
        if self._lock < 0:
            return
        self._undo()
        self._remove()
        for folder in self._made:
            with suppress(OSError):
                folder.rmdir()

    def _undo(self) -> None:
        for staged, final in interrupted_commit(self.target, self._label).items():
            if not (self.folder / staged).exists() and (self.target / final).exists():
                (self.target / final).replace(self.path(staged))
            _remove_empty((self.target / final).parent, self.target)
        (self.folder / _LIST).unlink(missing_ok=True)

    def _remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1


def _remove_empty(folder: Path, up_to: Path) -> None:
    with suppress(OSError):
        while folder != up_to:
            folder.rmdir()
            folder = folder.parent


def sync(path: Path) -> None:
    """Have the system write a file or folder to its disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
