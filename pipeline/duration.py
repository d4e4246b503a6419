"""Durations as people write them: ``"50ms"``, ``"1.5s"``, ``timedelta``; inside, integer nanoseconds."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal

__all__ = ["Duration", "nanoseconds", "readable_duration"]

#: A text such as ``"40ms"``, a timedelta, or an integer of nanoseconds.
Duration = str | int | timedelta

_UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_TEXT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ns|us|ms|s|min|m|h)\s*")


def nanoseconds(duration: Duration) -> int:
    """`duration` in ns. Raises ValueError for a negative one, an unknown unit or a part of a nanosecond.

    >>> nanoseconds("1.5ms")
    1500000
    """
    if isinstance(duration, timedelta):
        value = (duration.days * 86_400 + duration.seconds) * 10**9 + duration.microseconds * 1_000
    elif isinstance(duration, str):
        match = _TEXT.fullmatch(duration)
        if match is None:
            raise ValueError(f"{duration!r} is not a duration; write a number and one of {', '.join(_UNITS)}")
        exact = Decimal(match[1]) * _UNITS[match[2]]
        value = int(exact)
        if value != exact:
            raise ValueError(f"{duration!r} is finer than a nanosecond")
    elif isinstance(duration, int) and not isinstance(duration, bool):
        value = duration
    else:
        raise ValueError(f"{duration!r} is not a duration; write for example '50ms'")
    if value < 0:
        raise ValueError(f"a duration is not negative, got {duration!r}")
    return value


def readable_duration(value: int) -> str:
    """`value` ns as the largest unit that keeps it exact: ``50ms``."""
    for unit in ("h", "min", "s", "ms", "us"):
        if value and value % _UNITS[unit] == 0:
            return f"{value // _UNITS[unit]}{unit}"
    return f"{value}ns"
