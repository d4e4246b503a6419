"""How recordings of each format become messages again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any

from ...pipeline.columns import as_numpy
from ...pipeline.errors import FormatError, GraphError
from ...pipeline.source import SourceSpec
from ..formats import FOLDERS, FORMATS, format_of, recordings_at
from ..storage.listing import without
from ..storage.stored import PathLike
from ._decoded import UNREAD, count, decoded_blocks
from .message import Message, Playable

__all__ = ["playable_of"]


def playable_of(
    path: PathLike | Sequence[PathLike] | SourceSpec, *, format: str | None = None, **options: Any
) -> Playable:
    """The recording at `path`, by its content or as `format` says: several files in time order, of a source its rows.

    Raises FormatError if it cannot be replayed, GraphError for options that its format does not take, OSError.
    """
    if isinstance(path, SourceSpec):
        from .rows import spec_playable

        return spec_playable(path)
    given = [path] if isinstance(path, str) or not isinstance(path, Sequence) else list(path)
    places = [place for each in given for place in recordings_at(each)[0]]
    parts = []
    for place in places:
        try:
            parts.append(_one(place, format, dict(options)))
        except FormatError as error:
            others = without(place, places)
            if others is None or len(given) > 1:
                raise
            raise FormatError(f"{error}; leave it out with a wildcard, such as {others!r}") from None
    if len(parts) == 1:
        return parts[0]
    from .sets import together

    return together(parts, places)


def _one(place: str, format: str | None, options: dict[str, Any]) -> Playable:
    name = format if format is not None else format_of(place).name
    known = {"adc", "rows", *(each.name for each in (*FORMATS, *FOLDERS))}
    if name not in known:
        raise GraphError(f"no format {name!r}", expected=" | ".join(sorted(known)))
    module, function = _MAKERS.get(name, ("rows", "rows_playable"))
    make: Callable[..., Playable] = getattr(import_module(f".{module}", __package__), function)
    try:
        return make(place, **options)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        wrong = str(error).rpartition("argument ")[2].strip("'")
        raise GraphError(f"a replay of {name} takes no option {wrong!r} ({place})") from None


def recording_playable(path: str) -> Playable:
    """A recorded feed: what came, at the times at which it did."""
    from ..live.codecs import codec_named
    from .recording import described, recorded_arrivals

    told = described(path)
    codec = codec_named(told["codec"], json.loads(told["options"]))
    skipped: dict[str, int] = {}

    def messages() -> Iterator[Message]:
        for block, arrivals in recorded_arrivals(path):
            if block.error:
                skipped["parts of the recording could not be read"] = 1
            for arrival in arrivals:
                if not arrival.event:
                    yield Message(arrival.recv_ns, arrival.data, arrival.channel)

    return Playable(messages, text=codec.framing == "lines", framing=codec.framing, skipped=skipped)


def packets_playable(path: str, **options: Any) -> Playable:
    """The payloads of captured datagrams; `options` are those of `Pcap`."""
    from ..network.pcap import Pcap

    return _column(Pcap(path, **options), "payload")


def video_playable(path: str, **options: Any) -> Playable:
    """The packets of a video; `options` are those of `Video`."""
    from ..driving.video import Video

    return _column(Video(path, **options), "data")


def _column(spec: Any, column: str) -> Playable:
    """The bytes in one column of a source, at the times at which they were received."""
    skipped: dict[str, int] = {}

    def messages() -> Iterator[Message]:
        for _, decoded in decoded_blocks(spec):
            count(skipped, UNREAD, len(decoded.bad))
            for batch in decoded.batches:
                for ts_ns, data in zip(as_numpy(batch["ts_recv"]).tolist(), batch[column], strict=True):
                    yield Message(ts_ns, data.as_py())

    return Playable(messages, skipped=skipped)


#: Formats with messages of their own, and what makes them; rows of any other go out as JSON.
_MAKERS: dict[str, tuple[str, str]] = {
    "recording": ("formats", "recording_playable"),
    "MCAP": ("topics", "topics_playable"),
    "ROS 1 bag": ("topics", "topics_playable"),
    "rosbag2": ("topics", "topics_playable"),
    "pcap": ("formats", "packets_playable"),
    "video": ("formats", "video_playable"),
    "DBN": ("dbn", "dbn_playable"),
    "Slippi": ("formats_slippi", "slippi_playable"),
    "crypto": ("lines", "crypto_playable"),
    "NDJSON": ("lines", "ndjson_playable"),
    "JSON array": ("lines", "json_array_playable"),
    "NASDAQ ITCH 5.0": ("itch", "itch_playable"),
    "candump": ("can", "candump_playable"),
    "Vector ASC": ("can", "asc_playable"),
    "Vector BLF": ("can", "blf_playable"),
    "PEAK TRC": ("can", "trc_playable"),
    "adc": ("adc", "adc_playable"),
}
