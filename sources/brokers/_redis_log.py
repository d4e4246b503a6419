"""Entries of a stream behind an id, with what was trimmed in between counted.

Redis numbers nothing but counts what was ever added. With each read, in one transaction, comes that count and how many
entries are left: where all that are left lie behind the position, what is missing from the count was never read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ...pipeline.context import BadRecord, Context
from ...pipeline.duration import readable_duration
from ...pipeline.source import Position
from ..live.arrival import Arrival
from ._asking import Asking
from ._gaps import gap_arrivals
from ._log_reader import Polled
from ._stamps import stamp_of

if TYPE_CHECKING:
    from .redis_stream import RedisStream

__all__ = ["RedisLog"]

_ENTRIES = 1024
_WAIT_MS = 100
_ANSWER_S = 2.0
_PASSING = (redis.ConnectionError, redis.TimeoutError)
_BEGINNING = "0-0"
Answer = TypeVar("Answer")


class RedisLog:
    """See `Log`. `_last` is the id of the last entry that was read, `_read` its number among all ever added."""

    def __init__(self, spec: RedisStream, context: Context, position: Position | None, *, patience_ns: int) -> None:
        self._spec, self._context, self._patience = spec, context, patience_ns
        self._place = spec.name
        self._channel: int = getattr(spec.codec, "channel", 0)
        self._asking = Asking(context, f"{spec.name} at {spec.address}", patience_ns)
        self._saved = position is not None
        self._last = _BEGINNING if position is None else str(position["last"])
        self._read: int | None = None if position is None else position["read"]
        self._end: str | None = None if position is None else position["end"]
        self._more = True
        self._client: Any = redis.Redis.from_url(
            spec.url,
            protocol=2,
            decode_responses=False,
            socket_timeout=_ANSWER_S,
            socket_connect_timeout=_ANSWER_S,
            retry=Retry(NoBackoff(), 0),
        )

    def begin(self) -> None:
        """See `Log.begin`."""
        about, _ = self._state(0)
        if self._saved:
            return
        last = _BEGINNING if about is None else _text(about["last-generated-id"])
        added = 0 if about is None else about.get("entries-added")
        if self._spec.end == "now":
            self._end = last
        if self._spec.start == "latest":
            self._last, self._read = last, added
        elif about is not None and added is not None:
            self._read = added - about["length"]
        else:
            self._read = added

    def _state(self, most: int) -> tuple[dict[str, Any] | None, list[Any]]:
        """What the stream says about itself (None: there is none), and up to `most` entries behind the last one read."""

        def ask() -> list[Any]:
            together = self._client.pipeline(transaction=True)
            together.xinfo_stream(self._spec.stream)
            if most:
                together.xread({self._spec.stream: self._last}, count=most)
            return list(together.execute(raise_on_error=False))

        about, *read = self._answer(ask)
        if isinstance(about, redis.ResponseError) and "no such key" in str(about):
            return None, []
        for found in (about, *read):
            if isinstance(found, redis.RedisError):
                raise ConnectionError(f"{self._place}: {self._spec.address} refuses: {found}")
        return {_text(key): value for key, value in about.items()}, [
            e for _, some in read[0] for e in some
        ] if most else []

    def _answer(self, call: Callable[[], Answer]) -> Answer:
        """What the server answers, asked again for as long as patience lasts."""

        def ask() -> Answer:
            try:
                return call()
            except redis.AuthenticationError as error:  # a kind of connection error, but one that stays
                raise redis.RedisError(str(error)) from None

        try:
            return self._asking.until(ask, _PASSING)
        except _PASSING as error:
            waited = f" within {readable_duration(self._patience)}" if self._patience else ""
            raise ConnectionError(
                f"{self._place}: no answer from Redis at {self._spec.address}{waited}: {error}; "
                "a run resumed from its checkpoint goes on where it was"
            ) from None
        except redis.RedisError as error:
            raise ConnectionError(f"{self._place}: {self._spec.address} refuses: {error}") from None

    def poll(self, most: int, most_bytes: int) -> Polled:
        """See `Log.poll`."""
        polled = Polled()
        if not self._more and not self._ended:
            self._answer(self._wait)
        about, entries = self._state(min(most, _ENTRIES))
        self._more = bool(entries)
        if about is None:
            polled.ended = self._end is not None
            return polled
        self._missed(about, polled)
        size = 0
        for entry_id, fields in entries:
            where = _text(entry_id)
            if self._end is not None and _order(where) > _order(self._end):
                polled.ended = True
                break
            self._last = where
            self._read = None if self._read is None else self._read + 1
            size += self._take(where, fields, polled)
            if size >= most_bytes:
                break
        else:
            polled.ended = self._end is not None and not entries
        polled.ended = polled.ended or self._ended
        return polled

    @property
    def _ended(self) -> bool:
        return self._end is not None and _order(self._last) >= _order(self._end)

    def _wait(self) -> None:
        """Until there is an entry behind the last one, or 0.1 s."""
        self._client.xread({self._spec.stream: self._last}, count=1, block=_WAIT_MS)

    def _take(self, where: str, fields: Mapping[bytes, bytes] | None, polled: Polled) -> int:
        fields = fields or {}
        data = fields.get(self._spec.field.encode())
        if data is None:
            names = ", ".join(sorted(_text(name) for name in fields)) or "none"
            error = f"no field {self._spec.field!r}; it has {names}"
            content = b"\n".join(part for pair in fields.items() for part in pair)
            polled.noticed.append(BadRecord(f"{self._place}, entry {where}", "broker.field", error, content))
            return len(content) + 100
        recv = stamp_of(fields.get(b"ts_recv"))
        if recv is None:
            recv = min(_order(where)[0], (1 << 63) // 10**6 - 1) * 1_000_000
        polled.arrivals.append(Arrival(recv, data, 0, self._channel))
        return len(data) + 100

    def _missed(self, about: Mapping[str, Any], polled: Polled) -> None:
        """Tell what was added behind the last entry and is gone, and go on behind it."""
        added, left, newest = about.get("entries-added"), about["length"], _text(about["last-generated-id"])
        if added is None or self._read is None:
            return
        first = _text(about["first-entry"][0]) if about["first-entry"] else None
        if added < self._read or _order(newest) < _order(self._last):
            self._tell(f"the stream was deleted and made again after entry {self._last}", polled)
            self._last, self._read = _BEGINNING, added - left
            return
        if first is not None and _order(first) <= _order(self._last):
            return
        if (count := added - self._read - left) > 0:
            before = f"before {first}" if first is not None else f"up to {newest}"
            self._tell(f"{count} entries after {self._last} and {before} were deleted before they were read", polled)
            self._read += count
            if first is None:
                self._last = newest

    def _tell(self, what: str, polled: Polled) -> None:
        polled.arrivals += gap_arrivals(self._context.clock.now_ns(), what)

    def position(self) -> Mapping[str, Any]:
        """See `Log.position`."""
        return {"last": self._last, "read": self._read, "end": self._end}

    def finish(self) -> None:
        """See `Log.finish`."""
        self._asking.finishing.set()

    def taken(self) -> None:
        """See `Log.taken`: nobody is told."""

    def close(self) -> None:
        """See `Log.close`."""
        self._asking.close()
        self._client.close()


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _order(entry: str) -> tuple[int, int]:
    """An id as numbers, which compare as the entries lie."""
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number or 0)
