"""Penstock: streaming preprocessing in front of model inference.

>>> import penstock as ps
>>> from penstock import models, ops, sinks, sources
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .pipeline import Flow, GraphError, PenstockError, Report, RunOptions, Stream, event_schema, read, tensor_type
from .pipeline.registry import when_missing
from .version import __version__

if TYPE_CHECKING:
    from . import models, ops, sinks, sources

__all__ = [
    "Flow",
    "GraphError",
    "PenstockError",
    "Report",
    "RunOptions",
    "Stream",
    "__version__",
    "event_schema",
    "models",
    "ops",
    "read",
    "sinks",
    "sources",
    "tensor_type",
]

_ROOMS = ("models", "ops", "sinks", "sources")


def __getattr__(name: str) -> Any:
    """Rooms are imported when first used, so that ``import penstock`` stays quick."""
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Also the rooms that are not imported yet, for tab completion."""
    return sorted({*globals(), *__all__})


when_missing(lambda: importlib.import_module(".ops", __name__))
