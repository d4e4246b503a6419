"""Whether the beginning of a file looks like lines of JSON objects, and what it looks like if not."""

from __future__ import annotations

import json

from ...pipeline.errors import FormatError

__all__ = ["BOM", "HEAD_BYTES", "check_head", "follows_object", "is_ndjson"]

BOM = b"\xef\xbb\xbf"
#: How much of the beginning decides.
HEAD_BYTES = 65_536


def is_ndjson(head: bytes) -> bool:
    """Whether `head`, the first bytes of a file's content, holds JSON objects one a line.

    Lines may be broken: one line that is a JSON object is enough, or a first line that begins with
    ``{"`` and is longer than `head`. Where the first line opens a document over several lines, half of them must be.
    """
    lines = _lines(head)
    if lines and lines[0].endswith((b"{", b"[", b",")):
        return 2 * sum(map(_is_object, lines)) >= len(lines)
    return _some_object(lines)


def _lines(head: bytes) -> list[bytes]:
    return [stripped for line in head.removeprefix(BOM).split(b"\n") if (stripped := line.strip(b" \t\r"))]


def _some_object(lines: list[bytes]) -> bool:
    """Whether a line is an object, or the only one begins like one that is longer than what is there."""
    if any(map(_is_object, lines)):
        return True
    if len(lines) != 1 or lines[0][:1] != b"{" or follows_object(lines[0]):
        return False
    return lines[0][1:].lstrip(b" \t")[:1] in (b'"', b"")


def follows_object(text: bytes) -> bool:
    """Whether another JSON object stands behind the first on the line that `text` begins with."""
    line = text.split(b"\n", 1)[0].decode("utf-8", "replace")
    try:
        _, end = json.JSONDecoder().raw_decode(line)
    except (ValueError, RecursionError):
        return False
    return line[end:].lstrip()[:1] == "{"


def _is_object(line: bytes) -> bool:
    if not (line.startswith(b"{") and line.endswith(b"}")):
        return False
    try:
        found = json.loads(line)
        return isinstance(found, dict) and bool(found)  # {} alone is a line of many languages
    except (ValueError, RecursionError):
        return False


def check_head(head: bytes, path: str) -> None:
    """Raises FormatError that says what the file is instead; nothing if `head` is blank or has a line that is an object."""
    text = head.removeprefix(BOM).strip(b" \t\r\n")
    if not text or _some_object(_lines(head)):
        return
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise FormatError(f"{path} is UTF-16, not UTF-8: convert it with iconv -f UTF-16 -t UTF-8")
    if text.startswith(b"["):
        raise FormatError(f"{path} is one JSON array, not an object a line: convert it with jq -c '.[]'")
    if follows_object(text):
        raise FormatError(f"{path} holds JSON objects one behind the other, not one a line: write them so with jq -c .")
    if text.startswith(b"{"):
        raise FormatError(f"{path} holds a JSON object over several lines, not one a line: convert it with jq -c .")
    raise FormatError(f"{path} is not JSON lines: no line is a JSON object, the file begins with {head[:16]!r}")
