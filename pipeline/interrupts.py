"""What Ctrl-C does to a run: the first may be the normal end of a source that has none of its own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["first_interrupt"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def first_interrupt(end: Callable[[], bool]) -> Iterator[None]:
    """While the block runs, call `end` at the first SIGINT, or SIGTERM where that has a handler.

    Signals do what they did before from the second on, and at once where `end` says False. `end` is called by the main
    thread at any point of what it does, so it may only set flags. In other threads, where no signals come, nothing changes.
    """
    before: dict[signal.Signals, Callable[[int, Any], Any]] = {}

    def handle(number: int, frame: Any) -> None:
        handlers = dict(before)
        restore()
        if not end():
            handlers[signal.Signals(number)](number, frame)

    def restore() -> None:
        for each, handler in before.items():
            signal.signal(each, handler)
        before.clear()

    if threading.current_thread() is threading.main_thread():
        for each in _SIGNALS:
            handler = signal.getsignal(each)
            if callable(handler):
                before[each] = handler
                signal.signal(each, handle)
    try:
        yield
    finally:
        restore()
