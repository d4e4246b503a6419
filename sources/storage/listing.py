"""Which files a path or URL with wildcards names."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ._remote import ask, filesystem
from .stored import PathLike, base_name, is_url, location

__all__ = ["expand", "is_pattern", "list_folder", "nothing_at", "without"]

_WILD = re.compile(r"[*?\[]")
_WEB, _WEB_WILD = ("http://", "https://"), re.compile(r"[*\[]")


def is_pattern(path: PathLike) -> bool:
    """Whether it has wildcards. In a web address ``?`` is none: a query begins with it."""
    text = location(path)
    return (_WEB_WILD if text.startswith(_WEB) else _WILD).search(text) is not None


def expand(pattern: PathLike) -> list[str]:
    """Files that `pattern` names, sorted with numbers by value: those in a folder, those that match wildcards, or itself."""
    text = location(pattern)
    if is_url(text):
        return _expand_url(text)
    if Path(text).exists() and not Path(text).is_dir():
        return [text]
    if Path(text).is_dir():
        return list_folder(text)
    found = glob.glob(text, recursive=True)  # noqa: PTH207 - it takes absolute patterns
    return sorted((path for path in found if Path(path).is_file()), key=_by_number)


def list_folder(folder: PathLike) -> list[str]:
    """The files right in a folder that are not hidden, sorted with numbers by value."""
    text = location(folder)
    if is_url(text):
        return _expand_url(f"{text.rstrip('/')}/*")
    here = [path for path in Path(text).iterdir() if path.is_file() and not path.name.startswith(".")]
    return sorted(map(str, here), key=_by_number)


def nothing_at(pattern: PathLike) -> str:
    """Why `pattern` names no files, and what to do."""
    text = location(pattern)
    if is_url(text) or not Path(text).is_dir():
        return f"no file is called {text}"
    inner = sorted(path.name for path in Path(text).iterdir() if path.is_dir() and not path.name.startswith("."))
    if not inner:
        return f"{text} is an empty folder"
    shown = ", ".join(inner[:4]) + (f" and {len(inner) - 4} more" if len(inner) > 4 else "")
    below = str(Path(text) / "**" / "*")
    return f"{text} holds no files, but folders ({shown}): name one of them, or all files below with {below!r}"


def without(wrong: str, places: Sequence[str]) -> str | None:
    """Wildcards that name the most of `places`, which are in one folder, but not `wrong`; None if no ending tells them."""
    own = PurePosixPath(base_name(wrong)).suffix
    endings = Counter(PurePosixPath(base_name(place)).suffix for place in places)
    ending = next((each for each, _ in endings.most_common() if each not in (own, "")), None)
    return None if ending is None else f"{wrong[: -len(base_name(wrong))]}*{ending}"


def _expand_url(url: str) -> list[str]:
    system, inner = filesystem(url)
    if not is_pattern(url):
        # asking a web server whether a file is a folder means to fetch it
        folder = url.endswith("/") if url.startswith(_WEB) else system.isdir(inner)
        return _expand_url(f"{url.rstrip('/')}/*") if folder else [url]
    listed = ask(url, lambda: system.glob(inner, detail=True))
    found = [path for path, info in listed.items() if info["type"] == "file"]
    within, _, holder = url.partition("::")
    if holder and "://" in within:  # files inside another file, such as an archive
        return sorted((f"{within.partition('://')[0]}://{path}::{holder}" for path in found), key=_by_number)
    return sorted((system.unstrip_protocol(path) for path in found), key=_by_number)


def _by_number(path: str) -> list[tuple[bool, int, str]]:
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", path)]
