"""A fixed number of torch threads for one call, whatever thread makes it.

How a matrix product is split over threads can change its last bits, so a model always runs with the number it was
opened with. OpenMP and MKL keep that number per calling thread, and torch's own setter also changes what threads born
later start with; so it is set around each call and put back after it.
"""

from __future__ import annotations

import threading
from types import TracebackType

import torch

__all__ = ["ThreadLimit"]


class ThreadLimit:
    """Context manager; entered by any thread, not by two at once."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._before = threads
        self._known = threading.local()

    def __enter__(self) -> None:
        self._before = torch.get_num_threads()
        # a thread that has not called torch before reports the number but MKL does not follow it yet
        if self._before != self._threads or not hasattr(self._known, "yes"):
            torch.set_num_threads(self._threads)
            self._known.yes = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before != self._threads:
            torch.set_num_threads(self._before)
