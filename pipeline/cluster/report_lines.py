"""A run report as lines of a job's log, and back.

The log is the one thing that every job leaves where its submitter can read it, whether it succeeded, failed or was stopped,
and that goes when the job's other traces go. So a job's last lines are its report: compressed JSON in lines that `LogLines`
keeps from the reader, and a closing line with a checksum and the error, because Ray shows a failed job's last lines as its
message::

    penstock-report 1/2 eNrtWm1v27YW/iuGPm1AYpCURFL7NqwDdoFhBbYPF7gYDIqibC2yJOglrTf0
    penstock-report 2/2 v+8cKX5TLNdJ2q5d4wK2JfLwvB8e8tF/w9Rk2i3jJPwh/LLc2DY8CrP8t7bM
    penstock-report end 1f2e3d4c failed: step 'decode': ...
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from typing import Any

from ..report import Report

__all__ = ["LogLines", "closing_error", "from_log", "to_lines"]

_PREFIX = "penstock-report "
_PART = re.compile(r"penstock-report (\d{1,6})/(\d{1,6}) ([A-Za-z0-9+/=]+)")
_END = re.compile(r"penstock-report end ([0-9a-f]{8}) (.*)")
_WIDTH = 8_000
#: Bytes of JSON beyond which what comes out of the log is no report.
_LARGEST = 256 << 20


def to_lines(report: Report) -> str:
    """The report as lines for a log, each ending with a newline."""
    packed = zlib.compress(json.dumps(report.data).encode(), 9)
    text = base64.b64encode(packed).decode()
    parts = [text[start : start + _WIDTH] for start in range(0, len(text), _WIDTH)]
    lines = [f"{_PREFIX}{number}/{len(parts)} {part}" for number, part in enumerate(parts, 1)]
    error = " ".join(str(report.data.get("error") or "").split())[:2_000]
    outcome = f"{report.data.get('outcome')}" + (f": {error}" if error else "")
    return "\n".join([*lines, f"{_PREFIX}end {zlib.crc32(packed):08x} {outcome}"]) + "\n"


def from_log(log: str) -> Report | None:
    """The last report in a log, or None if there is none or it is not whole."""
    parts: list[str] = []
    found = None
    for line in log.splitlines():
        if not line.startswith(_PREFIX):
            continue
        if part := _PART.fullmatch(line):
            number, count = int(part[1]), int(part[2])
            parts = [*parts, part[3]] if number == len(parts) + 1 <= count else [part[3]] * (number == 1)
        elif end := _END.fullmatch(line):
            found = _unpacked("".join(parts), int(end[1], 16)) or found
            parts = []
    return found


def closing_error(line: str) -> str | None:
    """What a closing line says about the outcome; None for any other line."""
    end = _END.fullmatch(line)
    return end[2] if end else None


class LogLines:
    """A log that comes in pieces, without the lines of a report."""

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, piece: str) -> str:
        """The whole lines that `piece` completes and that are for a reader."""
        *lines, self._rest = (self._rest + piece).split("\n")
        return "".join(line + "\n" for line in lines if not line.startswith(_PREFIX))

    def end(self) -> str:
        """What came after the last newline."""
        rest, self._rest = self._rest, ""
        return rest if not rest.startswith(_PREFIX) else ""


def _unpacked(text: str, checksum: int) -> Report | None:
    try:
        packed = base64.b64decode(text, validate=True)
        if zlib.crc32(packed) != checksum:
            return None
        opened = zlib.decompressobj()
        data: Any = json.loads(opened.decompress(packed, _LARGEST)) if packed else None
    except (binascii.Error, zlib.error, ValueError):
        return None
    return Report(data) if isinstance(data, dict) and "stages" in data and "sinks" in data else None
