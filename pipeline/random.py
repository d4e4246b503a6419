"""Randomness that belongs to a place in the data, not to the order in which threads happened to ask.

A counter-based generator (Philox 4x64) needs no state carried from element to element: the operation and the seed
are the key, the element's index is the upper half of the counter. So element 7 gets the same numbers in every
run, on every runner, whether or not elements 0 to 6 were drawn before it, and streams never overlap: each has
2**128 blocks of its own.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

__all__ = ["generator"]

_WORD = (1 << 64) - 1


def generator(operation: str, index: int, seed: int = 0) -> np.random.Generator:
    """The random numbers of element `index` of `operation` (a step id, or a name within it).

    Equal arguments give equal numbers; any other argument gives an independent stream.
    Raises ValueError unless ``0 <= index < 2**64`` and ``0 <= seed < 2**64``.
    """
    for name, value in (("index", index), ("seed", seed)):
        if not 0 <= value <= _WORD:
            raise ValueError(f"{name} must be in 0..2**64-1, got {value}")
    counter = np.array([0, 0, index, 0], np.uint64)
    return np.random.Generator(np.random.Philox(key=_key(operation, int(seed)), counter=counter))


@lru_cache(maxsize=1024)
def _key(operation: str, seed: int) -> npt.NDArray[np.uint64]:
    digest = blake2b(seed.to_bytes(8, "little") + operation.encode(), digest_size=16, person=b"penstock")
    key = np.frombuffer(digest.digest(), "<u8").astype(np.uint64)
    key.flags.writeable = False
    return key
