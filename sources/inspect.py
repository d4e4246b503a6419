"""What a file holds, told by its content and not by its name, without decoding payloads that are not needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..pipeline.errors import FormatError
from .driving.mcap import inspect_mcap, is_mcap
from .market.crypto import inspect_crypto_raw, is_crypto_raw
from .market.itch import inspect_itch, is_itch
from .replay.recording import inspect_recording, is_recording
from .storage.stored import PathLike, is_url, location, stored_size
from .storage.unpack import head_of
from .text.ndjson import inspect_ndjson, is_ndjson

__all__ = ["FORMATS", "Format", "inspect", "summary"]

_HEAD = 1 << 16


@dataclass(frozen=True, slots=True)
class Format:
    """A file format: its name, how to recognise it from the first (unpacked) bytes, how to describe a file of it."""

    name: str
    recognises: Callable[[bytes], bool]
    describe: Callable[[str], Mapping[str, Any]]


#: In the order in which they are tried.
FORMATS: tuple[Format, ...] = (
    Format("recording", is_recording, inspect_recording),
    Format("MCAP", is_mcap, inspect_mcap),
    Format("crypto", is_crypto_raw, inspect_crypto_raw),
    Format("NDJSON", is_ndjson, inspect_ndjson),
    Format("NASDAQ ITCH 5.0", is_itch, inspect_itch),
)


def inspect(path: PathLike) -> dict[str, Any]:
    """What a recording holds, in the same keys for every format.

    ``file``, ``bytes``, ``format``, total ``messages``, ``counts`` by topic or message type, ``time`` (``start`` and
    ``end``, ISO-8601 and ns; None where the file does not tell), ``schema`` by topic or as one line, ``problem`` (None if
    the file is whole), ``details`` that only this format has. Raises FormatError if the file is empty or of no known
    format, and OSError if it cannot be read.
    """
    found = recognise(path)
    place = location(path)
    return {"file": place, "bytes": stored_size(place), **_in_common(found, found.describe(place))}


def recognise(path: PathLike) -> Format:
    """The format of a file, by its content. Raises FormatError if it is empty, a folder or of no known one; OSError."""
    place = location(path)
    if not is_url(place) and Path(place).is_dir():
        raise FormatError(f"{place} is a folder; inspect a file in it")
    head, compression = head_of(place, _HEAD)
    if not head:
        raise FormatError(f"{place} is empty")
    for candidate in FORMATS:
        if candidate.recognises(head):
            return candidate
    names = ", ".join(known.name for known in FORMATS)
    inside = "" if compression == "none" else f" inside {compression}"
    raise FormatError(f"{place} begins{inside} with {head[:16].hex(' ')}, which is none of {names}")


def _in_common(known: Format, found: Mapping[str, Any]) -> dict[str, Any]:
    own = dict(found)
    own.pop("format", None)
    groups = own.get("topics") or own.get("types") or {}
    topics = own.get("topics")
    schema = own.pop("schema", None)
    if topics:
        schema = {name: topic["schema"] for name, topic in topics.items()}
    return {
        "format": known.name,
        "messages": own.pop("messages"),
        "counts": {
            str(name): inner["messages"] if isinstance(inner, Mapping) else inner for name, inner in groups.items()
        },
        "time": own.pop("time", None) or _utc(own.get("time_range")),
        "schema": schema or own.pop("columns", {}),
        "problem": own.pop("problem", None) or own.pop("error", None),
        "details": own,
    }


def _utc(time_range: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not time_range or "utc" not in time_range:
        return None
    start, end = time_range["utc"]
    return {"start": start, "end": end}


def summary(found: Mapping[str, Any]) -> str:
    """What `inspect` found, for people."""
    lines = [f"{found['file']}: {found['format']}, {found['messages']:,} messages, {found['bytes']:,} bytes"]
    if found["problem"]:
        lines.append(f"  problem: {found['problem']}")
    if found["time"]:
        lines.append(f"  time {found['time']['start']} to {found['time']['end']}")
    names = found["details"].get("topics") or found["details"].get("types") or {}
    width = max((len(name) for name in found["counts"]), default=0)
    for name, count in found["counts"].items():
        meaning = names.get(name)
        what = meaning.get("type") or meaning.get("name") if isinstance(meaning, Mapping) else ""
        lines.append(f"  {name:<{width}}  {count:>10,}  {what or ''}".rstrip())
    if found["details"].get("topics"):
        rows = {topic["type"]: topic["schema"] for topic in names.values()}
        lines += [f"  rows of {kind}: {schema}" for kind, schema in sorted(rows.items())]
    elif isinstance(found["schema"], Mapping):
        lines.append("  keys: " + ", ".join(f"{name} {kind}" for name, kind in found["schema"].items()))
    else:
        lines.append(f"  rows: {found['schema']}")
    return "\n".join(lines)
