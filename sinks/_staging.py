"""Files are written in a hidden folder beside their final place and renamed when all of them are complete.

The folder is locked by the run that writes it. A run that was killed leaves the folder but not the lock, so the next run
finds what was staged and either goes on behind it (after a checkpoint) or starts afresh. While `commit` renames files the
folder holds a list of them; whoever finds the list takes back what had been renamed, since nothing says that it was all.
After the last rename the list becomes a mark that what is still staged is of no more use. `publish` needs no list: it
renames what a stored checkpoint names, one file after the other, and the checkpoint says how to go on.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from ..pipeline.context import Context
from ..pipeline.durable import sync
from ..pipeline.errors import GraphError, RunError

__all__ = ["Staging", "interrupted_commit", "refuse_existing", "refuse_stranger"]

_LOCK = ".lock"
_COMMIT = ".commit.json"
_DONE = ".done.json"
#: A killed process may still hold its lock while the system takes it apart.
_LOCK_TRIES = 200
_LOCK_WAIT_S = 0.05


def _folder(target: Path, label: str) -> Path:
    return target / f".penstock-staging-{label}"


def interrupted_commit(target: Path, label: str) -> Mapping[str, str]:
    """What a commit that never ended was about to rename, staged name to final name; empty if there was none."""
    try:
        listed = json.loads((_folder(target, label) / _COMMIT).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {str(staged): str(final) for staged, final in listed.items()}


def refuse_existing(path: Path, name: str, *, overwrite: bool) -> None:
    """Raise GraphError if the sink `name` may not write the single file `path`."""
    if path.is_dir():
        raise GraphError(f"{name}: {path} is a folder; a file name is needed")
    if path.exists() and not overwrite and not interrupted_commit(path.parent, path.name):
        raise GraphError(f"{name}: the file exists; remove it, choose another name, or say overwrite=True")


def refuse_stranger(path: Path, name: str, *, overwrite: bool) -> None:
    """Raise RunError if the sink `name`, which did not write `path` yet, would replace it when a resumed run commits."""
    if path.exists() and not overwrite:
        raise RunError(f"{name}: the file was not there when the interrupted run began; remove it to resume")


class Staging:
    """The staging folder of one sink. `target` is the folder that holds the final names.

    Ends with `commit`, `remove`, `abort` or `detach`; what comes after that does nothing.
    """

    def __init__(self, target: Path, label: str, context: Context) -> None:
        self.target, self.folder = target, _folder(target, label)
        self._label = label
        self._made = [parent for parent in (target, *target.parents) if not parent.exists()]
        self._lock = self._take_lock(context)
        self._stored: set[str] = set()
        try:
            self._undo()
            if (self.folder / _DONE).exists():
                self.keep_only(())
                (self.folder / _DONE).unlink()
        except BaseException:
            self._release()
            raise

    def _take_lock(self, context: Context) -> int:
        tries = _LOCK_TRIES if context.resuming else 1
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
                tries -= 1
                if not tries or context.stop.wait(_LOCK_WAIT_S):
                    raise RunError(
                        f"{self.target}: another run is writing here; wait for it, or give each sink a path of its own"
                    ) from None
            except BaseException:
                os.close(lock)
                raise

    def staged(self) -> list[str]:
        """The files in the folder, relative to it."""
        files = (path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())
        return sorted(name for name in files if not name.startswith(".") or "/" in name)

    def holds(self, name: str) -> bool:
        """Whether the file `name` is staged."""
        return (self.folder / name).is_file()

    def path(self, name: str) -> Path:
        """Where the file `name` is staged; the folder it is in exists afterwards."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def keep_only(self, names: Iterable[str]) -> None:
        """Remove every staged file but `names`, which a stored snapshot has."""
        wanted = set(names)
        self._stored = wanted
        for name in self.staged():
            if name not in wanted:
                (self.folder / name).unlink()

    def store(self, names: Iterable[str]) -> None:
        """Have the system write the finished files `names`, and that they are there, to its disk; once for each."""
        fresh = [name for name in names if name not in self._stored]
        for name in fresh:
            sync(self.folder / name)
        for folder in _between((self.folder / name for name in fresh), self.target):
            sync(folder)
        self._stored.update(fresh)

    def commit(self, files: Mapping[str, str], *, replaced: Iterable[str] = ()) -> None:
        """Rename staged files to final names, delete `replaced` ones that are not among them; all relative to `target`.

        All or nothing: what a commit that is cut short had renamed is taken back by `abort`, `detach` or the next run.
        """
        for staged in files:
            sync(self.folder / staged)
        partial = self.folder / (_COMMIT + ".part")
        partial.write_text(json.dumps(dict(files)))
        sync(partial)
        partial.replace(self.folder / _COMMIT)
        sync(self.folder)
        self._rename(files, replaced)
        (self.folder / _COMMIT).replace(self.folder / _DONE)
        with suppress(OSError):  # all is where it belongs; what cannot be tidied up is left to the next run
            sync(self.folder)
            self.keep_only(())
        self.remove()

    def publish(self, names: Iterable[str], *, replaced: Iterable[str] = ()) -> None:
        """Rename staged files to the same names in `target`, delete `replaced` ones; the folder stays in use.

        For files that a stored checkpoint names: what is cut short is done again by the run that resumes from it.
        """
        self._rename({name: name for name in names}, replaced)

    def _rename(self, files: Mapping[str, str], replaced: Iterable[str]) -> None:
        for staged, final in files.items():
            (self.target / final).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / staged).replace(self.target / final)
        finals = set(files.values())
        for final in replaced:
            if final not in finals:
                (self.target / final).unlink(missing_ok=True)
        for folder in _between((self.target / final for final in files.values()), self.target):
            sync(folder)

    def abort(self) -> None:
        """Remove everything that was staged, and every folder made for it. Published files stay."""
        if self._lock < 0:
            return
        try:
            self._undo()
        finally:
            self._remove_with_folders()

    def detach(self) -> None:
        """Leave what is staged to the run that resumes and let go of the lock; leave nothing if nothing is staged."""
        if self._lock < 0:
            return
        try:
            self._undo()
            wanted = bool(self.staged())
        except BaseException:
            self._release()
            raise
        if wanted:
            self._release()
        else:
            self._remove_with_folders()

    def remove(self) -> None:
        """Remove the folder; everything that counts has its final name."""
        if self._lock >= 0:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._release()

    def _undo(self) -> None:
        for staged, final in interrupted_commit(self.target, self._label).items():
            if not self.holds(staged) and (self.target / final).exists():
                (self.target / final).replace(self.path(staged))
            _remove_empty((self.target / final).parent, self.target)
        (self.folder / _COMMIT).unlink(missing_ok=True)

    def _remove_with_folders(self) -> None:
        self.remove()
        for folder in self._made:
            with suppress(OSError):
                folder.rmdir()

    def _release(self) -> None:
        lock, self._lock = self._lock, -1
        os.close(lock)


def _remove_empty(folder: Path, up_to: Path) -> None:
    with suppress(OSError):
        while folder != up_to:
            folder.rmdir()
            folder = folder.parent


def _between(paths: Iterable[Path], top: Path) -> list[Path]:
    """The folders that hold `paths`, and those around them up to `top`."""
    found = {top}
    for path in paths:
        for folder in path.parents:
            if folder in found:
                break
            found.add(folder)
    return sorted(found)
