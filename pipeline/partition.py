"""One keyed operator as several: rows are divided by key, results put together as if there had been one.

Every runner must write the same rows. So a divided operator is not a different operator: `Partitioned` says by which
columns rows may be divided, puts what the parts emit for one batch or one watermark into the order in which the undivided
operator would have emitted it, and takes state apart and together, so that a snapshot does not know how many parts made it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

__all__ = ["Partitioned"]


class Partitioned(ABC):
    """How one operator is divided. Used by the thread that sends to the parts and takes from them in order."""

    #: Columns of the input whose values decide which part a row goes to; every part gets every watermark.
    columns: tuple[str, ...]

    @abstractmethod
    def merge(self, parts: Sequence[Sequence[pa.RecordBatch]]) -> Sequence[pa.RecordBatch]:
        """What the undivided operator would have emitted, from what each part emitted for the same batch or watermark."""

    @abstractmethod
    def merge_side(self, name: str, parts: Sequence[Sequence[pa.RecordBatch]]) -> Sequence[pa.RecordBatch]:
        """The same for side output `name`."""

    @abstractmethod
    def split(self, state: Mapping[str, Any], parts: int) -> Sequence[Mapping[str, Any]]:
        """The state of each of `parts` parts from the undivided operator's; also sets what `merge` itself counts."""

    @abstractmethod
    def join(self, states: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """The undivided operator's state from those of the parts and what `merge` has counted."""
