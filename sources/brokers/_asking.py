"""Calls to a broker that block for longer than a run may take to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

__all__ = ["Asking", "Stopped"]

_LOOK_S = 0.1
Answer = TypeVar("Answer")


class Stopped(Exception):
    """The run is being abandoned; nobody waits for the answer."""


class Asking:
    """Runs calls one after the other in a thread of its own and looks every 0.1 s whether the run is over."""

    def __init__(self, stop: threading.Event, step: str) -> None:
        self._stop = stop
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"penstock-{step}-ask")

    def begin(self, call: Callable[..., Answer], *args: Any, **options: Any) -> Future[Answer]:
        """Ask without waiting."""
        return self._thread.submit(call, *args, **options)

    def ask(self, call: Callable[..., Answer], *args: Any, **options: Any) -> Answer:
        """What `call` returns or raises. Raises Stopped if the run ends first."""
        answer = self.begin(call, *args, **options)
        while not wait([answer], _LOOK_S).done:
            if self._stop.is_set():
                raise Stopped
        return answer.result()

    def close(self) -> None:
        """Wait for the call that is under way."""
        self._thread.shutdown(wait=True, cancel_futures=True)
