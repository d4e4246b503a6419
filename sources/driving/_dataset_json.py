"""nuScenes' sample_data.json, a list of flat objects of up to some gigabytes, read piece by piece."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ...pipeline.errors import FormatError
from ..storage.stored import within
from ..storage.unpack import open_feed
from ._dataset_folders import entries, holds

__all__ = ["objects", "sample_data"]

_READ = 1 << 20
#: No object of the list is longer.
_MOST_OBJECT = 1 << 18


def sample_data(root: str, channel: str) -> list[tuple[str, int]]:
    """``(file name, ns)`` of every entry of `channel` in the tables of `root`. Raises FormatError without a table."""
    tables = [e.name for e in entries(root) if e.folder and e.name.startswith("v1.0-")]
    tables = [name for name in tables if holds(root, name, "sample_data.json")]
    if not tables:
        raise FormatError(f"{root} has no v1.0-*/sample_data.json; take index='files'")
    found: dict[str, int] = {}
    for table in tables:
        path = within(root, f"{table}/sample_data.json")
        for value in objects(path):
            name, time = value.get("filename"), value.get("timestamp")
            if not isinstance(name, str) or type(time) is not int or not 0 < time < 9_200_000_000_000_000:
                raise FormatError(
                    f"{path} lists {str(value)[:80]!r}, without a filename or a timestamp in microseconds"
                )
            parts = name.split("/")
            if (
                len(parts) == 3
                and parts[0] in ("samples", "sweeps")
                and parts[1] == channel
                and parts[2] not in ("", "..")
            ):
                found[name] = time * 1000
    return list(found.items())


def objects(path: str) -> Iterator[dict[str, Any]]:
    """The objects of a JSON list. Raises FormatError with the offset where it is none."""
    decoder, feed = json.JSONDecoder(), open_feed(path)
    text, base, ended, started = b"", 0, False, False
    buffer = memoryview(bytearray(_READ))
    try:
        while True:
            if not ended:
                got = feed.fill(buffer)
                ended = got < _READ
                text += bytes(buffer[:got])
            if feed.error is not None:
                raise FormatError(f"{path}: {feed.error}")
            cut = len(text) if ended else text.rfind(b"}") + 1
            if not cut and len(text) > _MOST_OBJECT:
                raise FormatError(f"{path}, byte {base}: no object ends within {_MOST_OBJECT} bytes")
            try:
                piece, at = text[:cut].decode("utf-8"), 0
            except UnicodeDecodeError as error:
                raise FormatError(f"{path}, byte {base + error.start}: this is not UTF-8") from None
            while True:
                while at < len(piece) and piece[at] in " \t\r\n," + ("" if started else "["):
                    started = started or piece[at] == "["
                    at += 1
                if at == len(piece) or (piece[at] == "]" and started):
                    break
                try:
                    value, at = decoder.raw_decode(piece, at)
                except (ValueError, RecursionError):
                    if ended or len(piece) - at > _MOST_OBJECT:
                        raise FormatError(f"{path}, near byte {base + at}: this is no list of JSON objects") from None
                    break
                if not started or not isinstance(value, dict):
                    raise FormatError(f"{path}, near byte {base + at}: this is no list of JSON objects")
                yield value
            if at < len(piece) and piece[at] == "]":
                return
            done = len(piece[:at].encode()) if at < len(piece) else cut
            base, text = base + done, text[done:]
            if ended:
                raise FormatError(f"{path}, byte {base}: the list does not end")
    finally:
        feed.close()
