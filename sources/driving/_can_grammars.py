"""The formats of CAN logs in text, as grammars of `_can_lines`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...pipeline.errors import FormatError
from ...pipeline.source import Position
from . import _can_asc_kernels as asc
from . import _can_candump_kernels as candump
from . import _can_trc_kernels as trc

__all__ = ["AscGrammar", "CandumpGrammar", "TrcGrammar"]

Array = npt.NDArray[Any]


class CandumpGrammar:
    """candump's lines. Remembers the interfaces met so far; `names` are known from the start."""

    name = "candump"
    reasons: Sequence[str] = candump.REASONS
    no_frames: Sequence[int] = ()

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._names, self._sizes = np.zeros((256, 16), np.uint8), np.zeros(256, np.int64)
        self._set(names)

    def _set(self, names: Sequence[str]) -> None:
        for i, name in enumerate(names):
            raw = name.encode("latin-1")
            self._names[i, : len(raw)] = np.frombuffer(raw, np.uint8)
            self._sizes[i] = len(raw)
        self._known = len(names)

    @property
    def interfaces(self) -> list[str]:
        """Interfaces by bus number."""
        return [self._names[i, : self._sizes[i]].tobytes().decode("latin-1") for i in range(self._known)]

    def restore(self, position: Position) -> None:
        names = position.get("interfaces")
        if not isinstance(names, list) or len(names) > 256 or not all(isinstance(n, str) for n in names):
            raise FormatError(f"a position in a candump log lists its interfaces, got {names!r}")
        self._set(names)

    def position(self) -> dict[str, Any]:
        return {"interfaces": self.interfaces}

    def scan(self, data: Array, starts: Array, lengths: Array) -> Array:
        codes = np.empty(len(starts), np.int64)
        self._known = candump.interfaces(data, starts, lengths, self._names, self._sizes, self._known, codes)
        return codes

    def columns(
        self,
        data: Array,
        starts: Array,
        lengths: Array,
        scanned: Array,
        first: int,
        status: Array,
        columns: list[Array],
    ) -> int:
        return int(candump.frames(data, starts, lengths, scanned, first, status, *columns))


class AscGrammar:
    """The lines of an .asc log. Remembers the time of the last line, which relative times are added to."""

    name = "asc"
    reasons: Sequence[str] = asc.REASONS
    no_frames: Sequence[int] = (asc.HEADER, asc.EVENT)

    def __init__(self, origin: int, *, decimal: bool, relative: bool) -> None:
        self._origin, self._decimal, self._relative, self._now = origin, decimal, relative, 0

    def restore(self, position: Position) -> None:
        self._now = int(position["time"])

    def position(self) -> dict[str, Any]:
        return {"time": self._now}

    def scan(self, data: Array, starts: Array, lengths: Array) -> Array:
        times = np.empty(len(starts), np.int64)
        self._now = int(asc.elapsed(data, starts, lengths, self._relative, self._now, times))
        return times

    def columns(
        self,
        data: Array,
        starts: Array,
        lengths: Array,
        scanned: Array,
        first: int,
        status: Array,
        columns: list[Array],
    ) -> int:
        known = data, starts, lengths, scanned, self._origin, self._decimal, first, status
        return int(asc.frames(*known, *columns))


class TrcGrammar:
    """The lines of a trace of PEAK, with words in the order of `letters` (N O T B I d R l L D); nothing to remember."""

    name = "trc"
    reasons: Sequence[str] = trc.REASONS
    no_frames: Sequence[int] = (trc.COMMENT, trc.EVENT)

    def __init__(self, origin: int, letters: str) -> None:
        self._origin, self._letters = origin, np.frombuffer(letters.encode(), np.uint8).copy()

    def restore(self, position: Position) -> None:
        pass

    def position(self) -> dict[str, Any]:
        return {}

    def scan(self, data: Array, starts: Array, lengths: Array) -> Array:
        return np.empty(0, np.int64)

    def columns(
        self,
        data: Array,
        starts: Array,
        lengths: Array,
        scanned: Array,
        first: int,
        status: Array,
        columns: list[Array],
    ) -> int:
        return int(trc.frames(data, starts, lengths, self._letters, self._origin, first, status, *columns))
