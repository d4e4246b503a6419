"""What a file holds, told by its content and not by its name, without decoding payloads that are not needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .formats import FOLDERS, FORMATS, Format, format_of
from .storage.stored import PathLike, is_url, location, stored_size

__all__ = ["inspect", "reading_call", "summary"]


def inspect(path: PathLike) -> dict[str, Any]:
    """What a recording holds, in the same keys for every format.

    ``file``, ``bytes``, ``format``, total ``messages``, ``counts`` by topic or message type, ``time`` (``start`` and
    ``end``, ISO-8601 and ns; None where the file does not tell), ``schema`` by topic or as one line, ``problem`` (None if
    the file is whole), ``details`` that only this format has: among them ``bad`` (records that do not decode),
    ``left_out`` (records by the reason that they are not read), ``options`` (what `open` has to be given) and ``hint``
    (what it may be given), where there are such. Raises FormatError if the file is empty or of no known
    format, and OSError if it cannot be read.
    """
    found = format_of(path)
    place = location(path)
    folder = not is_url(place) and Path(place).is_dir()
    size = sum(p.stat().st_size for p in Path(place).rglob("*") if p.is_file()) if folder else stored_size(place)
    return {"file": place, "bytes": size, **_in_common(found, found.describe(place))}


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
    details = found["details"]
    if details.get("events"):
        lines.append(f"  and beside them {details['events']:,} events of the connection (times of the recording)")
    if details.get("bad"):
        lines.append(f"  {details['bad']:,} of them are bad: read them to quarantine to see why")
    lines += [f"  {count:,} are left out: {why}" for why, count in (details.get("left_out") or {}).items()]
    if details.get("topics"):
        rows = {topic["type"]: topic["schema"] for topic in names.values()}
        lines += [f"  rows of {kind}: {schema}" for kind, schema in sorted(rows.items())]
    elif isinstance(found["schema"], Mapping):
        if found["schema"]:
            lines.append("  keys: " + ", ".join(f"{name} {kind}" for name, kind in found["schema"].items()))
    else:
        lines.append(f"  rows: {found['schema']}")
    return "\n".join([*lines, _how_to_read(found)])


def _how_to_read(found: Mapping[str, Any]) -> str:
    call = reading_call(found)
    if call is None:
        return "  it has no topics, and so nothing to read"
    hint = found["details"].get("hint")
    return f"  read it: {call}" + (f"; {hint}" if hint else "")


def reading_call(found: Mapping[str, Any], files: str | None = None) -> str | None:
    """The Python that reads it, or the `files` that it is the first of; None if it has no topics."""
    details = found["details"]
    options = f", {details['options']}" if details.get("options") else ""
    behind = ""
    if "topics" in details and not details.get("one_table"):
        counts = found["counts"]
        topic = next((name for name, count in counts.items() if count), next(iter(counts), None))
        if topic is None:
            return None
        choice = next(known.choice for known in (*FORMATS, *FOLDERS) if known.name == found["format"])
        if choice or files is not None:
            options += f", {choice or 'topic'}={topic!r}"
        else:
            behind = f".topic({topic!r})"
    opener = f"sources.open({found['file']!r}" if files is None else f"sources.files({files!r}"
    return f"{opener}{options}){behind}"
