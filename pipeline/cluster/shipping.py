"""What travels to the cluster with a job: this package, and the folder of the user's file.

Ray ships folders as they are and names a module after its folder. A checkout may have any name and holds tests, benchmarks
and history beside the package, so a clean copy called ``penstock`` is what gets shipped; it is the same files whether they
come from a checkout or a wheel. The user's folder is copied as well, so that what is left out of it leaves nothing out of
the package (Ray applies its ``excludes`` to both), and so that it is small enough is known before anything is sent.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path

from ..errors import PenstockError
from ..options import readable_bytes

__all__ = ["LARGEST_FOLDER", "package_files", "stage_folder", "stage_package"]

#: Bytes of the user's folder that are shipped without asking.
LARGEST_FOLDER = 100 << 20
MOST_FILES = 10_000
#: Top-level names of a checkout that are not the package.
NOT_PACKAGED = ("tests", "bench", "conftest.py", "setup.py")
LEFT_OUT = ("__pycache__", "node_modules", "*.pyc", "*.egg-info")


def package_files(root: Path) -> list[Path]:
    """The modules of the package at `root`, relative to it: its own, and those of every folder with an ``__init__.py``."""
    folders, files = [root], [Path("py.typed")] if (root / "py.typed").is_file() else []
    for folder in folders:
        names = (path for path in sorted(folder.iterdir()) if folder != root or path.name not in NOT_PACKAGED)
        for path in names:
            if path.suffix == ".py" and path.is_file():
                files.append(path.relative_to(root))
            elif not path.name.startswith(".") and (path / "__init__.py").is_file():
                folders.append(path)
    return files


def stage_package(into: Path, root: Path | None = None) -> Path:
    """Copy the package to ``into/penstock`` and return that. `root` is where it is, by default the one that runs."""
    root = root or Path(__file__).resolve().parents[2]
    target = into / "penstock"
    _copy(root, package_files(root), target)
    return target


def stage_folder(folder: Path, into: Path, exclude: Sequence[str] = (), largest: int = LARGEST_FOLDER) -> Path:
    """Copy `folder` to ``into/job`` and return that.

    Hidden files, virtual environments and caches stay here, and so does what matches a pattern of `exclude`: ``data/``,
    ``*.mcap``, a path from the folder. Raises PenstockError if more than `largest` bytes are left.
    """
    files = _files(folder, tuple(pattern.rstrip("/") for pattern in exclude), largest)
    target = into / "job"
    target.mkdir(parents=True)
    _copy(folder, files, target)
    return target


def _files(folder: Path, exclude: tuple[str, ...], largest: int) -> list[Path]:
    found: list[Path] = []
    sizes: list[tuple[int, str]] = []
    total = 0
    for home, folders, names in os.walk(folder):
        here = Path(home).relative_to(folder)
        folders[:] = sorted(
            name for name in folders if not _left_out(here / name, exclude) and not _venv(Path(home, name))
        )
        for name in sorted(names):
            path = here / name
            if _left_out(path, exclude) or not (folder / path).is_file():
                continue
            size = (folder / path).stat().st_size
            total += size
            found.append(path)
            sizes = sorted([*sizes, (-size, str(path))])[:2]
            if total > largest or len(found) > MOST_FILES:
                much = f"more than {readable_bytes(largest)}" if total > largest else f"more than {MOST_FILES:,} files"
                biggest = ", ".join(f"{name} of {readable_bytes(-size)}" for size, name in sizes)
                raise PenstockError(
                    f"{folder} holds {much} (such as {biggest}), too much to ship with a job: keep data where the cluster "
                    "can read it, name what to leave out with --exclude, or a smaller folder with --working-dir"
                )
    return found


def _left_out(path: Path, exclude: Iterable[str]) -> bool:
    name, whole = path.name, path.as_posix()
    if name.startswith(".") or any(fnmatch(name, pattern) for pattern in LEFT_OUT):
        return True
    return any(fnmatch(name, pattern) or fnmatch(whole, pattern.removeprefix("./")) for pattern in exclude)


def _venv(folder: Path) -> bool:
    return (folder / "pyvenv.cfg").is_file()


def _copy(source: Path, files: Iterable[Path], target: Path) -> None:
    for path in files:
        copy = target / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, copy)
