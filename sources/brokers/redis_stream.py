"""Redis Streams: entries by id, read without a consumer group, so that the position is the run's own.

events = sources.RedisStream("redis://localhost:6379/0", "events", codec)
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar
from urllib.parse import urlsplit

from ...pipeline.context import Context
from ...pipeline.duration import nanoseconds
from ...pipeline.errors import GraphError, MissingExtraError
from ...pipeline.source import Position
from ..live.session import Codec, check_codec
from ._log_reader import Log
from ._log_source import LogSource

__all__ = ["RedisStream"]

_SCHEMES = ("redis", "rediss", "unix")


@dataclass(frozen=True)
class RedisStream(LogSource):
    """Entries of `stream`, each with one payload in `field`, as rows of `codec`.

    `url` is ``redis://[USER:PASSWORD@]HOST:PORT/DB``, ``rediss://`` (TLS) or ``unix://PATH``. `start` is ``"earliest"`` or
    ``"latest"``, for a run that does not resume; with ``end="now"`` it ends with the entry that is the last when the run
    first begins. `most` counts messages over a resumed run, `duration` begins anew. `reconnect` is how long to wait for the
    server, at the start or after it was lost; nothing is lost meanwhile. `record` is a file (MCAP) to which what arrives is
    written.

    ``ts_recv`` is the entry's field ``ts_recv`` (ns in decimal) if it has one, else the ms of its id. An entry without
    `field` is a bad record ``broker.field``, which takes no row number. Entries that were trimmed or deleted before they
    were read are one bad record ``broker.gap`` with the ids between which they were and how many (needs Redis 7 or Valkey;
    older servers do not count entries, and there trimming cannot be seen). A stream that was deleted and made again is
    told as a gap and read from its beginning. What a resumed run promises for each codec is as for `Kafka`. Redis Cluster
    is not followed from node to node.

    Raises GraphError for wrong arguments, MissingExtraError without redis; a run raises ConnectionError when the server is
    away for longer than `reconnect` or refuses.
    """

    format: ClassVar[str] = "redis"
    url: str = dataclasses.field(repr=False)
    stream: str
    codec: Codec
    field: str = "data"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_codec(self.codec, "RedisStream")
        parts = urlsplit(self.url)
        if parts.scheme not in _SCHEMES or not (parts.hostname or parts.path.strip("/")):
            raise GraphError("not the address of a Redis server", expected="redis://HOST:PORT/DB", got=self.address)
        if not self.stream or not self.field:
            raise GraphError("a stream needs a name, and its entries a field", expected="field='data'")

    @property
    def address(self) -> str:
        """The server, without user and password."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def name(self) -> str:
        return f"redis:{self.stream}"

    @property
    def feed(self) -> Codec:
        return self.codec

    def log(self, context: Context, position: Position | None) -> Log:
        """See `LogSource.log`."""
        if find_spec("redis") is None:
            raise MissingExtraError("reading from Redis", "redis", "brokers")
        from ._redis_log import RedisLog

        return RedisLog(self, context, position, patience_ns=nanoseconds(self.reconnect))
