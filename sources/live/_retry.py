"""Connecting again: sooner at first, later and later, until patience ends."""

from __future__ import annotations

from ...pipeline.context import Context
from .inlet import Inlet

__all__ = ["Retry"]

_FIRST_NS, _MOST_NS = 100_000_000, 5_000_000_000
_STEP_NS = 100_000_000


class Retry:
    """How long to wait before the next try. `patience_ns` counts from the last success."""

    def __init__(self, context: Context, patience_ns: int) -> None:
        self._context, self._patience = context, patience_ns
        self.succeeded()

    def connected(self) -> None:
        """There is a connection, which may be lost again before anything comes: the next pause is no shorter for it."""
        self._since: int | None = None

    def succeeded(self) -> None:
        """There is a connection, and something has come on it."""
        self._pause = _FIRST_NS
        self.connected()

    def wait(self, inlet: Inlet) -> bool:
        """Wait before trying again; False if patience has ended or nobody wants more."""
        clock = self._context.clock
        now = clock.monotonic_ns()
        self._since = now if self._since is None else self._since
        left = self._since + self._patience - now
        if left <= 0 or inlet.done:
            return False
        pause = min(self._pause, left)
        self._pause = min(2 * self._pause, _MOST_NS)
        while pause > 0 and not inlet.done:
            if clock.wait_ns(min(pause, _STEP_NS), self._context.stop):
                return False
            pause -= _STEP_NS
        return not inlet.done
