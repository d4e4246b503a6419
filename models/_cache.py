"""Where compiled models are kept: the user's cache folder, never the package or the current directory."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..pipeline.errors import PlanError

__all__ = ["cache_folder"]


def cache_folder(name: str) -> Path:
    """``<user cache>/penstock/<name>``, created; ``PENSTOCK_CACHE_DIR`` replaces ``<user cache>/penstock``.

    What lies here is loaded as code, so the folder must be the user's own and closed to writing by others.
    """
    folder = _root() / name
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if hasattr(os, "getuid"):
        status = folder.stat()
        if status.st_uid != os.getuid() or status.st_mode & 0o022:
            raise PlanError(
                f"{folder}: others may write to this cache of compiled models; "
                "`chmod 700` it, or set PENSTOCK_CACHE_DIR to a folder of your own"
            )
    return folder


def _root() -> Path:
    chosen = os.environ.get("PENSTOCK_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "penstock" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "penstock"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock"
