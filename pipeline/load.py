"""Finding the flow in a user's file."""

from __future__ import annotations

import contextlib
import runpy
import sys
from pathlib import Path

from .errors import PenstockError
from .flow import Flow
from .iterate import delivery_step
from .stream import Stream

__all__ = ["import_folders", "load_flow"]

_FOLDERS: list[str] = []


def import_folders() -> list[str]:
    """Where this process finds modules, the folders of loaded flows included: other processes need them too."""
    return [*_FOLDERS, *(path for path in sys.path if path and path not in _FOLDERS)]


def load_flow(path: Path, name: str = "flow") -> Flow:
    """Run the file (not as ``__main__``) and give its flow. Raises PenstockError if there is none of that name."""
    if not path.is_file():
        raise PenstockError(f"no file {path}")
    folder = str(path.resolve().parent)
    if folder not in _FOLDERS:
        _FOLDERS.append(folder)
    sys.path.insert(0, folder)
    try:
        namespace = runpy.run_path(str(path), run_name="__penstock__")
    finally:
        with contextlib.suppress(ValueError):  # the file may have changed the path for itself
            sys.path.remove(folder)
    found = namespace.get(name)
    if isinstance(found, Stream):
        return Flow((delivery_step(found.port),))
    if isinstance(found, Flow):
        return found
    there = sorted(key for key, value in namespace.items() if isinstance(value, (Flow, Stream)))
    raise PenstockError(f"{path} has no flow named {name!r}" + (f"; it has {', '.join(there)}" if there else ""))
