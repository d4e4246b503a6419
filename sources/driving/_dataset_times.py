"""Times in text, exactly: digits to integer ns, never through a float."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ...pipeline.errors import GraphError

__all__ = ["civil_ns", "iso", "time_span", "zone"]

_CIVIL = re.compile(r"(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def zone(name: str) -> ZoneInfo:
    """The time zone `name` of the IANA data base. Raises GraphError if there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise GraphError(f"there is no time zone {name!r}; give one like 'Europe/Berlin' or 'UTC'") from None


def civil_ns(text: str, at: ZoneInfo) -> int:
    """ns since 1970 of ``2011-09-26 13:02:25.964389445`` in a time zone. Raises ValueError for anything else."""
    found = _CIVIL.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is no time like 2011-09-26 13:02:25.964389445")
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    whole = datetime(year, month, day, hour, minute, second, tzinfo=at)
    if not 1900 < year < 2262:
        raise ValueError(f"the year {year} is outside 1901 to 2261")
    return (whole - _EPOCH) // timedelta(seconds=1) * 10**9 + int((found[7] or "0").ljust(9, "0"))


def time_span(start: int, end: int) -> dict[str, Any]:
    """What `inspect` tells of a time range in ns."""
    return {
        "start": iso(start),
        "end": iso(end),
        "start_ns": start,
        "end_ns": end,
        "seconds": (end - start) / 1e9,
    }


def iso(ns: int) -> str | None:
    """ISO 8601 in UTC with all nine digits; None for a time that no calendar has."""
    try:
        whole = _EPOCH + timedelta(seconds=ns // 10**9)
    except OverflowError:
        return None
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{ns % 10**9:09d}Z"
