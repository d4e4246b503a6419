"""From a path or URL to a source, whatever the format.

rows = read(sources.open("01302019.NASDAQ_ITCH50.gz"))
radar = read(sources.open("drive.mcap", topic="/radar/front/points"))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..pipeline.errors import GraphError
from ..pipeline.source import SourceSpec
from .file_sets import files
from .formats import format_of
from .storage.listing import expand, is_pattern
from .storage.stored import PathLike, location

__all__ = ["one_source", "open_source"]


def open_source(path: PathLike | Sequence[PathLike], **options: Any) -> Any:
    """The source at `path`, a local path or any URL that fsspec knows; its format is told by the content, not the name.

    A recording of several topics (MCAP, bags) gives the recording, with ``topics()`` and ``topic(name)``, or with `topic`
    the source of one. The folder of a data set gives the source of one of its tables, which `table` (comma2k19), `topic`
    (KITTI) or `channel` (nuScenes) names. A path with wildcards, or several paths, is `files`: one source in time order.
    `options` go to the format's source (see its class). Raises FormatError for an empty file or one of no known format,
    GraphError for options that it does not take, OSError.
    """
    if not isinstance(path, str) and isinstance(path, Sequence):
        return files(path, **options)
    if is_pattern(path) and expand(path) != [location(path)]:
        return files(path, **options)
    found = format_of(path)
    try:
        return found.open(location(path), **options)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        wrong = str(error).rpartition("argument ")[2].strip("'")
        raise GraphError(f"{found.name} takes no option {wrong!r} ({location(path)})") from None


def one_source(path: PathLike, **options: Any) -> SourceSpec:
    """`open_source`, for places that need a source: a recording of one topic is that topic.

    Raises GraphError, saying what to name, for a recording of several.
    """
    found = open_source(path, **options)
    if isinstance(found, SourceSpec):
        return found
    names = list(found.topics())
    if len(names) != 1:
        what = (
            "several topics: say which with topic= (on the command line --topic)"
            if names
            else "no topics, and so nothing to read"
        )
        raise GraphError(f"{location(path)} holds {what}", expected=", ".join(names) or None)
    only: SourceSpec = found.topic(names[0])
    return only
