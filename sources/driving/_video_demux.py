"""Packets of one video stream in file order, numbered, from anywhere that `open_stored` reads (through PyAV)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ...pipeline.errors import FormatError, MissingExtraError
from ..storage.stored import Stored, is_url, open_stored
from ..storage.unpack import compression_of
from ._mcap_local import local_file
from ._video_annexb import ParameterSets, parameter_sets
from ._video_format import CODECS, CONTAINERS, RAW
from ._video_times import iso_ns

__all__ = ["Demuxer", "StreamInfo", "av_library"]

#: Larger pictures are refused before anything is allocated for them.
PIXELS_LIMIT = 1 << 26
#: What is fetched at once from a URL.
_WINDOW = 1 << 22
#: Packets that may fail to be read one after the other before the rest of the file counts as unreadable.
_FAILURES = 16


def av_library() -> Any:
    """The `av` module. Raises MissingExtraError."""
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("reading video", "av", "video") from error
    return av


class StoredFile(io.RawIOBase):
    """A `Stored` as the seekable file that PyAV reads; windows of 4 MiB are kept where every read costs a request."""

    def __init__(self, stored: Stored, *, window: int) -> None:
        self._stored, self._at, self._window = stored, 0, window
        self._kept, self._kept_at = b"", 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self._at, self._stored.size)[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int = -1) -> bytes:
        size = self._stored.size - self._at if size < 0 else size
        size = max(0, min(size, self._stored.size - self._at))
        if not self._window:
            data = self._stored.read(self._at, size)
        else:
            inside = self._at - self._kept_at
            if not (inside >= 0 and inside + size <= len(self._kept)):
                self._kept_at, inside = self._at, 0
                self._kept = self._stored.read(self._at, max(size, self._window))
            data = self._kept[inside : inside + size]
        self._at += len(data)
        return data


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What is known of a video stream before its packets are read.

    `origin` is the pts that counts as the start, `start_ns` the container's creation time, `timed` whether packets have
    times, `rate` frames a second where they have none, `packets` the number that the container states (0: none).
    """

    container: str
    codec: str
    decoder: str
    width: int
    height: int
    time_base: Fraction
    origin: int
    start_ns: int | None
    timed: bool
    rate: Fraction
    packets: int
    seconds: Fraction | None
    sets: ParameterSets
    extradata: bytes | None


class Demuxer:
    """One pass over the packets of the first video stream."""

    def __init__(self, path: str, container: str) -> None:
        self._av = av_library()
        self.path, self._container_name = path, container
        self._stored = open_stored(path)
        try:
            if compression_of(self._stored.read(0, 8)) != "none":  # containers are read at random
                self._stored.close()
                self._copy = local_file(path)
                self._stored = open_stored(self._copy.path)
            self._file = StoredFile(self._stored, window=_WINDOW if is_url(self._stored.path) else 0)
            self._container = self._opened()
            self._stream = self._video_stream()
            self.info = self._described()
        except BaseException:
            self.close()
            raise

    def _opened(self) -> Any:
        try:
            return self._av.open(
                self._file,
                mode="r",
                format=CONTAINERS[self._container_name],
                buffer_size=1 << 17,
                **_text_options(self._av),
            )
        except (self._av.FFmpegError, ValueError) as error:
            raise FormatError(
                f"{self.path}: cannot be opened as {self._container_name}: {_reason(error)}; "
                "is the file complete (mp4 needs its index, often at the end)?"
            ) from None

    def _video_stream(self) -> Any:
        streams = [s for s in self._container.streams.video if s.codec_context is not None]
        if not streams:
            raise FormatError(f"{self.path}: {self._container_name} without a video stream that can be read")
        return streams[0]

    def _described(self) -> StreamInfo:
        stream, container = self._stream, self._container
        context = stream.codec_context
        if not 0 < context.width * context.height <= PIXELS_LIMIT:
            raise FormatError(
                f"{self.path}: a picture of {context.width} x {context.height} pixels; from 1 to {PIXELS_LIMIT} can be read"
            )
        name = context.codec.canonical_name  # of the codec, not of the decoder: av1, not libdav1d
        codec = CODECS.get(name, name)
        extradata = context.extradata
        base = Fraction(stream.time_base) if stream.time_base else Fraction(1, 90_000)
        rate = context.framerate or stream.guessed_rate or stream.average_rate
        raw = self._container_name in RAW
        seconds = Fraction(container.duration, 10**6) if container.duration and not raw else None
        origin = stream.start_time if self._container_name == "mpegts" else 0
        return StreamInfo(
            container=self._container_name,
            codec=codec,
            decoder=context.name,
            width=context.width,
            height=context.height,
            time_base=base,
            origin=origin or 0,
            start_ns=_creation_time(stream.metadata, container.metadata),
            timed=not raw,
            rate=Fraction(rate) if rate and rate > 0 else Fraction(25),
            packets=stream.frames if self._container_name in ("mp4", "avi") else 0,
            seconds=seconds,
            sets=parameter_sets(codec, extradata or b""),
            extradata=extradata,
        )

    def packets(self, start: int = 0, *, pos: int | None = None, pts: int | None = None) -> Iterator[tuple[int, Any]]:
        """``(number, packet)`` from packet `start` on; an `str` in place of a packet says why it could not be read.

        `pos` and `pts` of that packet, where known, allow a seek; else what comes before is read and passed over.
        """
        number, first = 0, None
        if start and pos is not None and pts is not None and self._container_name in ("mp4", "matroska"):
            first = self._sought(pos, pts)
            if first is None:
                self._restart()
            else:
                number = start
                yield number, first
                number += 1
        for packet in self._all():
            if number >= start:
                yield number, packet
            number += 1

    def _all(self) -> Iterator[Any]:
        failures = 0
        feed = self._container.demux(self._stream)
        while True:
            try:
                packet = next(feed)
            except StopIteration:
                return
            except (self._av.FFmpegError, EOFError) as error:
                failures += 1
                yield f"cannot be read: {_reason(error)}"
                if failures >= _FAILURES:
                    return
                feed = self._container.demux(self._stream)
                continue
            if packet.size:
                failures = 0
                yield packet
            elif packet.dts is None and packet.pts is None:
                return

    def _sought(self, pos: int, pts: int) -> Any:
        try:
            self._container.seek(pts, stream=self._stream, backward=True, any_frame=False)
            for tried, packet in enumerate(self._container.demux(self._stream)):
                if packet.size and packet.pos == pos and packet.pts == pts:
                    return packet
                if tried > 256:
                    break
        except (self._av.FFmpegError, EOFError):
            pass
        return None

    def _restart(self) -> None:
        self._container.close()
        self._file.seek(0)
        self._container = self._opened()
        self._stream = self._video_stream()

    def close(self) -> None:
        """Release the file. May be called again."""
        container = getattr(self, "_container", None)
        if container is not None:
            container.close()
        self._stored.close()


def _text_options(av: Any) -> dict[str, str]:
    """Titles and other texts that are no UTF-8 do not stop reading; from version 19 on they never do."""
    return {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


def _creation_time(*metadata: Any) -> int | None:
    for entries in metadata:
        text = entries.get("creation_time")
        if text:
            try:
                found = iso_ns(text)
            except ValueError:
                continue
            if found > 0:  # writers without a clock leave 1904 or 1970 there
                return found
    return None


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0]
