"""ZeroMQ sockets: SUB to a publisher, PULL from pushers.

    quotes = sources.Zmq("tcp://feed:5556", codec, topic=b"BTC")

ZeroMQ keeps nothing: what is not read in time is gone, and a run that goes on from a checkpoint has missed what was sent
in between and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import ClassVar

import pyarrow as pa

from ...pipeline.context import Context
from ...pipeline.duration import Duration, nanoseconds
from ...pipeline.errors import GraphError, MissingExtraError
from ...pipeline.names import names_in
from ...pipeline.source import Position, SourceReader, SourceSpec, Split
from ..live.message_reader import Tape
from ..live.reader import LiveReader, session_position
from ..live.session import Codec, check_codec
from ._gaps import GapSession

__all__ = ["Zmq"]

_KINDS = ("sub", "pull")
_FRAMES = ("topic", "ts", "sequence", "payload")
_SCHEMES = ("tcp", "ipc", "pgm", "epgm", "ws", "wss")


@dataclass(frozen=True)
class Zmq(SourceSpec):
    """Multipart messages of a socket at `url`, each with one payload, as rows of `codec`.

    Parameters
    ----------
    url
        ``tcp://HOST:PORT``, ``ipc://PATH``; `bind` binds it instead of connecting.
    topic
        For ``kind="sub"``: the beginning of the first frame of what is wanted.
    kind
        ``"sub"`` or ``"pull"``.
    frames
        Names of the frames of a message in their order, of ``"topic"``, ``"ts"``, ``"sequence"`` and ``"payload"``. None:
        (topic, ts, payload) of three, (topic, payload) of two, (payload) of one.
    queue
        Messages that wait in the socket while the pipeline is busy; of a publisher, more are lost.
    most, duration, record, reconnect
        As for `Live`: the feed ends when the sender has been away for `reconnect`.

    ``ts_recv`` is the frame ``ts`` (ns, 8 bytes little-endian or decimal text), else the time of arrival. ``sequence`` (u64
    little-endian or decimal text, one higher with each message of a topic) makes losses visible: they are bad records
    ``broker.gap`` that say which numbers are missing. Without it ZeroMQ gives no sign of what a publisher dropped for a slow
    reader; only a lost connection is told (``live.gap``, where `bind` is false). A message with other frames is a bad
    record ``broker.frames``. A resumed run begins with a ``broker.gap``: what was sent meanwhile is missing.

    Raises GraphError for wrong arguments, MissingExtraError without pyzmq; a run raises ConnectionError if there was no
    connection within `reconnect`, or the address cannot be used.
    """

    format: ClassVar[str] = "zmq"
    rewinds: ClassVar[bool] = False
    url: str
    codec: Codec
    topic: bytes = field(default=b"", kw_only=True)
    kind: str = field(default="sub", kw_only=True)
    bind: bool = field(default=False, kw_only=True)
    frames: str | Sequence[str] | None = field(default=None, kw_only=True)
    queue: int = field(default=10_000, kw_only=True)
    most: int | None = field(default=None, kw_only=True)
    duration: Duration | None = field(default=None, kw_only=True)
    record: str | None = field(default=None, kw_only=True)
    reconnect: Duration = field(default="30s", kw_only=True)
    lateness: Duration = field(default="0s", kw_only=True)

    def __post_init__(self) -> None:
        check_codec(self.codec, "Zmq")
        scheme, separator, rest = self.url.partition("://")
        if scheme not in _SCHEMES or not separator or not rest:
            raise GraphError("not the address of a ZeroMQ socket", expected="tcp://HOST:PORT", got=self.url)
        if self.kind not in _KINDS:
            raise GraphError(f"no kind of socket {self.kind!r}", expected=" | ".join(_KINDS))
        if self.kind == "pull" and self.topic:
            raise GraphError("pushers do not tell topics apart", expected="topic only with kind='sub'")
        if self.frames is not None:
            names = names_in(self.frames)
            if names.count("payload") != 1 or len(set(names)) < len(names) or not set(names) <= set(_FRAMES):
                raise GraphError(f"{self.frames=}", expected=f"'payload' and any others of {', '.join(_FRAMES)}, once")
            object.__setattr__(self, "frames", names)
        if self.queue < 1:
            raise GraphError(f"queue={self.queue} is not above 0")
        if self.most is not None and self.most < 1:
            raise GraphError(f"most={self.most} is not above 0")
        for name in ("reconnect", "lateness"):
            object.__setattr__(self, name, nanoseconds(getattr(self, name)))
        if self.duration is not None:
            object.__setattr__(self, "duration", nanoseconds(self.duration))

    @property
    def lateness_ns(self) -> int:
        """`lateness` in ns."""
        return nanoseconds(self.lateness)

    @property
    def name(self) -> str:
        return f"zmq:{self.url}"

    @property
    def schema(self) -> pa.Schema:
        return self.codec.schema(self.name)

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        """Open the socket with the first block."""
        if find_spec("zmq") is None:
            raise MissingExtraError("reading from ZeroMQ", "pyzmq", "brokers")
        from ._zmq_line import ZmqLine

        line = ZmqLine(self, patience_ns=nanoseconds(self.reconnect))
        session = self.codec.open(context, self.name, session_position(position) or None)
        return LiveReader(
            [line],
            GapSession(session, self.name),
            context,
            place=self.name,
            position=position,
            most=self.most,
            duration_ns=None if self.duration is None else nanoseconds(self.duration),
            tape=self._tape if self.record is not None and not context.rehearsing else None,
        )

    def check_target(self) -> None:
        """Raise GraphError if there is a recording at `record`, whole or cut."""
        if self.record is not None:
            from ..replay.recorder import refuse_existing

            refuse_existing(self.record)

    def _tape(self) -> Tape:
        from ..replay.recorder import Recorder

        return Recorder(str(self.record), feed=self.name, codec=self.codec)

    @property
    def block_bound(self) -> int:
        return 64 << 20
