"""What a file holds, told by its content and not by its name, without decoding payloads that are not needed."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..pipeline.errors import FormatError
from .itch import inspect_itch, is_itch
from .mcap import inspect_mcap, is_mcap
from .ndjson import inspect_ndjson, is_ndjson

__all__ = ["FORMATS", "Format", "inspect", "summary"]

_HEAD = 1 << 16


@dataclass(frozen=True, slots=True)
class Format:
    """A file format: its name, how to recognise it from the first (unpacked) bytes, how to describe a file of it."""

    name: str
    recognises: Callable[[bytes], bool]
    describe: Callable[[Path], Mapping[str, Any]]


#: In the order in which they are tried.
FORMATS: tuple[Format, ...] = (
    Format("MCAP", is_mcap, lambda path: inspect_mcap(path)),
    Format("NDJSON", is_ndjson, lambda path: inspect_ndjson(path)),
    Format("NASDAQ ITCH 5.0", is_itch, lambda path: inspect_itch(path)),
)


def inspect(path: str | Path) -> dict[str, Any]:
    """Format, total `messages`, counts by topic or message type, time range and schema of a recording.

    Raises FormatError if the file is empty or of no known format, and OSError if it cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        raise FormatError(f"{path} is a folder; inspect a file in it")
    head = _head(path)
    for candidate in FORMATS:
        if candidate.recognises(head):
            return {"file": str(path), "bytes": path.stat().st_size, **candidate.describe(path)}
    names = ", ".join(known.name for known in FORMATS)
    raise FormatError(f"{path} begins with {head[:16].hex(' ')}, which is none of {names}")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise FormatError(f"{path} is empty")
    if head[:2] == b"\x1f\x8b":
        try:
            with gzip.open(path) as file:
                return file.read(_HEAD)
        except (EOFError, zlib.error, OSError):
            unpacked = zlib.decompressobj(31)
            try:
                return unpacked.decompress(head, _HEAD)
            except zlib.error as error:
                raise FormatError(f"{path} begins like gzip but does not unpack: {error}") from error
    return head


def summary(found: Mapping[str, Any]) -> str:
    """What `inspect` found, for people."""
    lines = [f"{found['file']}: {found['format']}, {found['messages']:,} messages, {found['bytes']:,} bytes"]
    for key, value in found.items():
        if key in ("file", "format", "messages", "bytes"):
            continue
        if isinstance(value, Mapping):
            lines.append(f"  {key}")
            width = max((len(str(name)) for name in value), default=0)
            lines += [f"    {name!s:<{width}}  {_cell(inner)}" for name, inner in value.items()]
        else:
            lines.append(f"  {key}: {_cell(value)}")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if abs(value) < 10**15 else str(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_cell(inner) for inner in value)
    return str(value)
