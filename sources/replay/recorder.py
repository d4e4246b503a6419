"""Writing what arrives on a feed, losslessly and with both clocks, and reading it back as rows.

A recording is an MCAP file (zstd chunks, indexed). What came until a second before its process was killed is in the file.
Each line of a feed is a channel ``/line/N`` (``/line/N/CHANNEL`` where the sender numbers its streams), and what happened to
its connection is on ``/line/N/events``; `log_time` is when a message came, `publish_time` too (the sender's clock is inside
the message). The channels' metadata says of which feed they are and which codec makes rows of them.

Nothing that was recorded is ever written over: `refuse_existing` is asked before a run begins, and a recorder that finds its
name taken all the same (a run that goes on from a checkpoint) takes the next one that is free, ``day-2.mcap``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from ...pipeline.errors import GraphError
from ..live.arrival import Arrival
from ..live.session import Codec

__all__ = ["Recorder", "refuse_existing"]

log = logging.getLogger("penstock")

_CHUNK = 1 << 20


def refuse_existing(path: str) -> None:
    """Raise GraphError if a recording cannot begin at `path`: one is there, whole or cut."""
    final = Path(path)
    if final.exists():
        raise GraphError(f"{final}: the file exists; remove it or choose another name")
    if (part := _part_of(final)).exists():
        raise GraphError(
            f"{part}: an earlier recording that was cut is there, or one is under way; read it or move it, "
            "or choose another name"
        )


class Recorder:
    """Writes arrivals to `path`, which has its name only once the recording is closed (before that, ``.part`` behind it).

    Where a recording is there already, the next free name is taken: ``day-2.mcap`` for ``day.mcap``. Raises OSError if it
    cannot be written.
    """

    def __init__(self, path: str, *, feed: str, codec: Codec | None = None) -> None:
        from mcap.writer import CompressionType, Writer

        asked = Path(path)
        asked.parent.mkdir(parents=True, exist_ok=True)
        self._final, self._file = _begun(asked)
        if self._final != asked:
            log.warning("%s has been recorded before: what comes now is recorded into %s", asked, self._final)
        self._writer = Writer(self._file, chunk_size=_CHUNK, compression=CompressionType.ZSTD)
        self._writer.start(profile="penstock", library="penstock")
        self._channels: dict[tuple[int, int, bool], int] = {}
        self._count = 0
        options = "{}" if codec is None else json.dumps(dict(codec.describe()), default=str)
        self._metadata = {"feed": feed, "codec": codec.name if codec else "raw", "options": options}
        self.messages = 0

    def write(self, arrivals: Sequence[Arrival]) -> None:
        """Keep them, in order."""
        for arrival in arrivals:
            data = arrival.event.encode() if arrival.event else arrival.data
            channel = self._channel(arrival.line, arrival.channel, bool(arrival.event))
            self._writer.add_message(channel, arrival.recv_ns, data, arrival.recv_ns, sequence=self._count & 0xFFFFFFFF)
            self._count += 1
            self.messages += not arrival.event

    def flush(self) -> None:
        """End the chunk and give it to the system: from then on it outlives the process."""
        writer: Any = self._writer
        writer.flush()

    def _channel(self, line: int, channel: int, event: bool) -> int:
        key = (line, channel, event)
        if key not in self._channels:
            topic = f"/line/{line}" + ("/events" if event else f"/{channel}" if channel else "")
            metadata = {**self._metadata, "line": str(line), "channel": str(channel), "events": "1" if event else ""}
            self._channels[key] = self._writer.register_channel(topic, "text" if event else "raw", 0, metadata)
        return self._channels[key]

    def close(self) -> None:
        """Finish the file and give it its name; nothing is left where no message came."""
        if not self._file.closed:
            writer: Any = self._writer
            writer.finish()
            self._file.close()
            part = _part_of(self._final)
            if not self.messages:
                part.unlink()
            else:
                part.replace(next(path for path in _names(self._final) if not path.exists()))


def _begun(asked: Path) -> tuple[Path, BinaryIO]:
    """The first name that no recording has, whole or cut, and its file while it has not ended."""
    for path in _names(asked):
        if not path.exists():
            try:
                return path, _part_of(path).open("xb")
            except FileExistsError:
                continue
    raise OSError(f"no name is free beside {asked}")


def _names(asked: Path) -> Iterator[Path]:
    yield asked
    for number in count(2):
        yield asked.with_name(f"{asked.stem}-{number}{asked.suffix}")


def _part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")
