"""Keeping the interpreter out of the way of a schedule.

A thread that wants to send on time waits for the interpreter lock as long as another may hold it, which is 5 ms by default,
and for a collection of garbage that walks everything a program has loaded. While a replay keeps a pace, other threads give
the lock back after 100 us, what is there already is not looked at by the collector, and what is new only in a pause. The
thread that sends goes before others of the machine, where the system lets it: it sleeps nearly always.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Rests", "steady"]

_SWITCH_S = 1e-4
#: How far the sending thread goes before others (its nice value on Linux).
_NICE = -10
#: A pause long enough to collect in, how often that is done, and when it is done without a pause.
_PAUSE_NS, _EVERY_NS, _AT_LAST_NS = 20_000_000, 1_000_000_000, 60_000_000_000


class _Shared:
    """The settings are those of the process; the first replay changes them and the last one restores them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._switch_s = 0.005
        self._collects = self._froze = False

    def enter(self) -> None:
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            self._switch_s, self._collects = sys.getswitchinterval(), gc.isenabled()
            sys.setswitchinterval(min(_SWITCH_S, self._switch_s))
            gc.disable()
            self._froze = self._collects and not gc.get_freeze_count()
            if self._froze:
                gc.freeze()

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users:
                return
            sys.setswitchinterval(self._switch_s)
            if self._froze:
                gc.unfreeze()
            if self._collects:
                gc.enable()


_shared = _Shared()


@contextmanager
def steady(wanted: bool = True) -> Iterator[None]:
    """Hold the settings for a schedule that this thread keeps; nothing changes unless `wanted`."""
    if not wanted:
        yield
        return
    _shared.enter()
    try:
        with _preferred():
            yield
    finally:
        _shared.leave()


@contextmanager
def _preferred() -> Iterator[None]:
    """Raise the priority of this thread alone, if it may."""
    if sys.platform != "linux":
        yield
        return
    thread, before = threading.get_native_id(), 0
    with contextlib.suppress(OSError):
        before = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(before, _NICE))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, before)


class Rests:
    """Collects what a replay leaves behind, in its pauses."""

    def __init__(self, now_ns: int) -> None:
        self._last = now_ns

    def during(self, ahead_ns: int, now_ns: int) -> None:
        """The next message is due in `ahead_ns`."""
        since = now_ns - self._last
        if since > _EVERY_NS and (ahead_ns > _PAUSE_NS or since > _AT_LAST_NS):
            gc.collect(1)
            self._last = now_ns
