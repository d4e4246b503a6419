"""What a decoder of ITCH messages is given: framed messages, and the symbols as they stood among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["Directory", "Part", "Symbols"]


@cache
def _unnamed() -> tuple[str, ...]:
    return tuple(f"?{locate}" for locate in range(65536))


@dataclass(frozen=True, slots=True)
class Symbols:
    """Symbols of locates 0 up to the highest met, at one moment: `texts`, and the raw bytes that were given."""

    texts: pa.Array
    names: npt.NDArray[np.uint8]
    named: npt.NDArray[np.uint8]


class Directory:
    """Symbols by stock locate, as far as the messages have named them."""

    def __init__(self) -> None:
        self.names: npt.NDArray[np.uint8] = np.zeros((65536, 8), np.uint8)
        self.named: npt.NDArray[np.uint8] = np.zeros(65536, np.uint8)
        self._texts: list[str] = []
        self._known: npt.NDArray[np.uint8] = np.zeros(65536, np.uint8)
        self._key = (-1, -1)
        self._symbols = Symbols(pa.array([], pa.utf8()), self.names[:0], self.named[:0])

    def values(self, version: int, highest: int) -> Symbols:
        """Symbols of locates 0 to `highest`; one without a name is ``?<locate>``. The same object while nothing changes.

        `version` is a number that changes whenever a locate is named.
        """
        if (version, highest) != self._key:
            count = highest + 1
            names, named = self.names[:count].copy(), self.named[:count].copy()
            texts = self._texts
            texts += _unnamed()[len(texts) : count]
            for locate in np.flatnonzero(named != self._known[:count]).tolist():
                texts[locate] = names[locate].tobytes().decode("latin-1").rstrip(" \x00")
            self._known[:count] = named
            self._symbols = Symbols(pa.array(texts[:count], pa.utf8()), names, named)
            self._key = (version, highest)
        return self._symbols


@dataclass(frozen=True, slots=True)
class Part:
    """Messages that share one state of the directory, ready to decode.

    `offsets` are the places of their type bytes in `data`, or of the padding for a message that is not to be decoded.
    `place` says where a message was. `bad` are (what, message, offset, size) of those found wrong already, and `unsound`
    counts others whose offset is that of the padding; `resting` holds price and side of what each E and C met. `keep` are
    objects that must live as long as the buffers.
    """

    data: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.uint32]
    count: int
    first_seq: int
    symbols: Symbols
    place: Callable[[int], str]
    ts_recv: npt.NDArray[np.int64] | None = None
    bad: tuple[tuple[int, int, int, int], ...] = ()
    unsound: int = 0
    resting: tuple[npt.NDArray[np.uint32], npt.NDArray[np.int8]] | None = None
    keep: tuple[Any, ...] = ()
