"""Where in the user's code a step was written, so that an error found later can point there."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Site", "calling_site", "function_name", "function_site"]

_ROOMS = tuple(
    str(Path(__file__).parent.parent / room) + "/" for room in ("pipeline", "sources", "ops", "models", "sinks")
)


@dataclass(frozen=True, slots=True)
class Site:
    """A file and a line of user code."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line}"


def calling_site() -> Site:
    """The innermost frame outside Penstock's own rooms."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_ROOMS):
        frame = frame.f_back
    return Site(frame.f_code.co_filename, frame.f_lineno)


def function_name(function: Callable[..., Any]) -> str:
    """How to call a user's function in a message: its qualified name, without the module."""
    return str(getattr(function, "__qualname__", None) or getattr(function, "__name__", None) or repr(function))


def function_site(function: Callable[..., Any]) -> Site | None:
    """Where a user's function is defined, or None for builtins and callable objects."""
    try:
        code = inspect.unwrap(function).__code__
    except AttributeError:
        return None
    return Site(code.co_filename, code.co_firstlineno)
