"""What several files hold: a line for each, and all of them together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .inspection import reading_call
from .storage.listing import without
from .storage.stored import base_name

__all__ = ["line_of", "total_of"]


def line_of(found: Mapping[str, Any]) -> str:
    """What `inspect` found in one of several files, in one line."""
    line = f"  {base_name(found['file'])}: {found['format']}, {found['messages']:,} messages, {found['bytes']:,} bytes"
    if found["time"]:
        line += f", {found['time']['start']} to {found['time']['end']}"
    return line + (f"; problem: {found['problem']}" if found["problem"] else "")


def total_of(given: str, found: Sequence[Mapping[str, Any]], refused: Sequence[str]) -> str:
    """All that `given` names, and how to read it as one; `refused` are files of it that are no recordings."""
    kinds = Counter(each["format"] for each in found)
    told = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    messages, size = (sum(each[key] for each in found) for key in ("messages", "bytes"))
    lines = [f"{given}: {len(found):,} files ({told}), {messages:,} messages, {size:,} bytes"]
    times = [each["time"] for each in found if each["time"] and each["time"]["start"] and each["time"]["end"]]
    if times:
        lines.append(f"  time {min(time['start'] for time in times)} to {max(time['end'] for time in times)}")
    problems = sum(bool(each["problem"]) for each in found)
    if problems:
        lines.append(f"  {problems:,} of them have a problem")
    if refused:
        lines.append(f"  beside them {len(refused):,} that are no recordings: {', '.join(map(base_name, refused))}")
    pattern = given if not refused else _pattern(found, refused)
    if len(kinds) > 1:
        lines.append("  they are of several formats: read those of one at a time, with wildcards or a list of files")
    elif pattern is not None and (call := reading_call(found[0], files=pattern)) is not None:
        lines.append(f"  read them: {call}")
    return "\n".join(lines)


def _pattern(found: Sequence[Mapping[str, Any]], refused: Sequence[str]) -> str | None:
    """Wildcards for all that was `found` and nothing that was `refused`."""
    names = [str(each["file"]) for each in found]
    pattern = without(refused[0], names)
    ending = (pattern or "").rpartition("*")[2]
    return (
        pattern
        if ending
        and all(name.endswith(ending) for name in names)
        and not any(name.endswith(ending) for name in refused)
        else None
    )
