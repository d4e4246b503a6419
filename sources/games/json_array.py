"""Telemetry that is one big JSON document: an array of events, or arrays somewhere inside an object.

    array_events("telemetry.json", type="_T", time="_D", time_unit="iso")                         # PUBG
    array_events("timeline.json", at="info.frames.events", type="type", player="participantId",   # Riot match timeline
                 time="timestamp", time_unit="ms", time_start_ns=start)

The elements are cut out as the file streams by, and go through the decoder of JSON lines: the same columns, the same speed,
the same quarantine for an element that is broken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from ...pipeline.context import Context
from ...pipeline.errors import FormatError, GraphError
from ...pipeline.source import Position, Split
from ..storage.stored import PathLike, location
from ..storage.unpack import head_of, open_feed
from ..text.ndjson import Ndjson, game_events

if TYPE_CHECKING:
    from ..text._ndjson_reader import LineReader
    from ._json_array_feed import ArrayFeed

__all__ = ["JsonArray", "array_events", "inspect_json_array", "is_json_array", "open_json_array"]

_MOST_PARTS, _MOST_KEY = 32, 128
_SPACE = b" \t\r\n"


@dataclass(frozen=True)
class JsonArray(Ndjson):
    """The elements of a JSON document's array as rows; every option of `Ndjson` holds, for an element instead of a line.

    `at` is the path to the array, keys joined by dots; empty: the document is the array. An array on the way is walked
    through, so ``info.frames.events`` takes the events of each frame. Keys are compared as they are written, with escapes.

    `seq` numbers the elements. Places in quarantine count lines and bytes of the elements' text, an element a line. A
    document that is cut, followed by something, or without such an array is a bad record behind the elements that were
    found. Raises FormatError for an empty file and one that is no JSON array or object; GraphError for a path that cannot
    be.
    """

    at: str = field(default="", kw_only=True)

    format: ClassVar[str] = "json"

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = self._parts
        if len(parts) > _MOST_PARTS or any(not part or len(part.encode()) > _MOST_KEY for part in parts):
            raise GraphError(f"{self.at=} is no path", expected=f"up to {_MOST_PARTS} keys joined by dots")

    @property
    def _parts(self) -> tuple[str, ...]:
        return tuple(self.at.split(".")) if self.at else ()

    def _reader(self, context: Context, start: Position, stop: int | None) -> LineReader:
        from ..text._ndjson_reader import LineReader

        return LineReader(
            self._lines(),
            self._layout(),
            context,
            path=location(self.path),
            position=start,
            stop=None,
            block_bytes=self.block_bytes,
            max_line=self.max_line,
        )

    def _lines(self) -> ArrayFeed:
        """The elements, a line each. Raises FormatError for what is no JSON document."""
        from ._json_array_feed import ArrayFeed

        path = location(self.path)
        head = head_of(path, 4096)[0].removeprefix(b"\xef\xbb\xbf").lstrip(_SPACE)
        if not head:
            raise FormatError(f"{path} is empty: it holds no JSON document")
        if head[:1] not in (b"[", b"{"):
            raise FormatError(f"{path} is no JSON array or object: it begins with {head[:16]!r}")
        return ArrayFeed(open_feed(path), self._parts)

    def splits(self, wanted: int) -> Sequence[Split]:
        """One: where an element begins is known only from all before it."""
        return (Split(0, 1),)


def array_events(path: PathLike, *, at: str = "", **options: Any) -> JsonArray:
    """Game telemetry in a JSON array as ``game.event``; `options` are those of `game_events`, `at` that of `JsonArray`."""
    lines = game_events(path, **options)
    return JsonArray(**{option.name: getattr(lines, option.name) for option in fields(lines)}, at=at)


def is_json_array(head: bytes) -> bool:
    """Whether a file that begins with `head` is a JSON array of objects."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip(_SPACE)
    inner = text[1:].lstrip(_SPACE)
    return text[:1] == b"[" and inner[:1] == b"{" and inner[1:].lstrip(_SPACE)[:1] in (b'"', b"}", b"")


def open_json_array(path: PathLike, *, at: str = "", **options: Any) -> JsonArray:
    """`array_events` with these options; the time and the type of the elements are found where these do not say.

    Raises GraphError if nothing in the first elements looks like their time.
    """
    from ..text._ndjson_inspect import guessed

    return array_events(path, at=at, **guessed(JsonArray(path, columns={}, time="-", at=at), options))


def inspect_json_array(path: PathLike) -> dict[str, Any]:
    """What a JSON array of objects holds, for `penstock inspect`: the keys of `inspect_ndjson`, of elements for lines."""
    from ..text._ndjson_inspect import describe_file

    return describe_file(JsonArray(location(path), columns={}, time="-"), "JSON array")
