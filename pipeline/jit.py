"""How kernels are compiled: one decorator, so that every kernel releases the GIL and is cached on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

__all__ = ["kernel"]

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile `function` with numba: no GIL, cached beside its file, IEEE arithmetic in program order.

    ``fastmath`` stays off: the order of floating-point additions is part of the determinism contract.
    Import this module (and so numba) only where a kernel is opened, never at package import.
    """
    compiled: F = numba.njit(cache=True, nogil=True)(function)
    return compiled
