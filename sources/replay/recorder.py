"""Writing what arrives on a feed, losslessly and with both clocks, and reading it back as rows.

A recording is an MCAP file (zstd chunks, indexed). What came until a second before its process was killed is in the file.
Each line of a feed is a channel ``/line/N`` (``/line/N/CHANNEL`` where the sender numbers its streams), and what happened to
its connection is on ``/line/N/events``; `log_time` is when a message came, `publish_time` too (the sender's clock is inside
the message). The channels' metadata says of which feed they are and which codec makes rows of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..live.arrival import Arrival
from ..live.session import Codec

__all__ = ["Recorder"]

_CHUNK = 1 << 20


class Recorder:
    """Writes arrivals to `path`, which has its name only once the recording is closed (before that, ``.part`` behind it).

    Raises OSError if it cannot be written.
    """

    def __init__(self, path: str, *, feed: str, codec: Codec | None = None) -> None:
        from mcap.writer import CompressionType, Writer

        self._final = Path(path)
        self._final.parent.mkdir(parents=True, exist_ok=True)
        self._part = self._final.with_name(f"{self._final.name}.part")
        self._file = self._part.open("wb")
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
        self._writer.flush()

    def _channel(self, line: int, channel: int, event: bool) -> int:
        key = (line, channel, event)
        if key not in self._channels:
            topic = f"/line/{line}" + ("/events" if event else f"/{channel}" if channel else "")
            metadata = {**self._metadata, "line": str(line), "channel": str(channel), "events": "1" if event else ""}
            self._channels[key] = self._writer.register_channel(topic, "text" if event else "raw", 0, metadata)
        return self._channels[key]

    def close(self) -> None:
        """Finish the file and give it its name; nothing is left where nothing came."""
        if not self._file.closed:
            writer: Any = self._writer
            writer.finish()
            self._file.close()
            if self._count:
                self._part.replace(self._final)
            else:
                self._part.unlink()
