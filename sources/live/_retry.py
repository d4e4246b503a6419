"""Connecting again: sooner at first, later and later, until patience ends; the log says when it begins and how it ended."""

from __future__ import annotations

import logging

from ...pipeline.context import Context
from .inlet import Inlet

__all__ = ["Outage", "Retry", "reason_of"]

log = logging.getLogger("penstock")

_FIRST_NS, _MOST_NS = 100_000_000, 5_000_000_000
_STEP_NS = 100_000_000
#: A sender that comes and goes is told of this often at most.
_QUIET_NS = 10 * 10**9


class Outage:
    """Tells in the log that `place` is away, once, and that it is back; nothing without a place or patience."""

    def __init__(self, context: Context, patience_ns: int, place: str) -> None:
        self._now = context.clock.monotonic_ns
        self._place, self._patience = place, patience_ns
        self._began: int | None = None
        self._told: int | None = None
        self._telling = False

    def goes_on(self, reason: str) -> None:
        """It is away, or still away, for `reason`."""
        now = self._now()
        self._began = now if self._began is None else self._began
        quiet = self._told is not None and now - self._told < _QUIET_NS
        if self._place and self._patience and not self._telling and not quiet:
            self._telling, self._told = True, now
            log.warning("%s: %s; trying again for %s", self._place, reason, _seconds(self._patience))

    def ends(self, *, again: bool = True) -> None:
        """It is there, `again` or for the first time."""
        if self._telling and self._began is not None:
            after = (self._now() - self._began) / 1e9
            log.warning("%s: connected%s after %.1f s", self._place, " again" if again else "", after)
        self._began, self._telling = None, False

    def stays(self) -> None:
        """Patience has ended, and with it the feed."""
        if self._place and self._patience:
            log.warning("%s: did not come back within %s: the feed ends", self._place, _seconds(self._patience))


class Retry:
    """How long to wait before the next try. `patience_ns` counts from the last success; `place` is named in the log."""

    def __init__(self, context: Context, patience_ns: int, place: str = "") -> None:
        self._context, self._patience = context, patience_ns
        self._outage = Outage(context, patience_ns, place)
        self._since: int | None = None
        self._pause = _FIRST_NS
        self._met = False

    def connected(self) -> None:
        """There is a connection, which may be lost again before anything comes: the next pause is no shorter for it."""
        self._since = None
        self._outage.ends(again=self._met)
        self._met = True

    def succeeded(self) -> None:
        """There is a connection, and something has come on it."""
        self._pause = _FIRST_NS
        self.connected()

    def wait(self, inlet: Inlet, reason: str = "no connection") -> bool:
        """Wait before trying again, since there is none for `reason`; False if patience has ended or nobody wants more."""
        clock = self._context.clock
        now = clock.monotonic_ns()
        self._since = now if self._since is None else self._since
        left = self._since + self._patience - now
        if inlet.done:
            return False
        if left <= 0:
            if self._met:
                self._outage.stays()
            return False
        self._outage.goes_on(reason)
        pause = min(self._pause, left)
        self._pause = min(2 * self._pause, _MOST_NS)
        while pause > 0 and not inlet.done:
            if clock.wait_ns(min(pause, _STEP_NS), self._context.stop):
                return False
            pause -= _STEP_NS
        return not inlet.done


def reason_of(error: BaseException) -> str:
    """What was wrong, as the end of a sentence: ``connection refused``."""
    text = str(getattr(error, "strerror", None) or error or type(error).__name__).rstrip(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def _seconds(duration_ns: int) -> str:
    return f"{duration_ns / 1e9:g} s"
