"""Video files: H.264, H.265 and MJPEG in mp4, mkv, MPEG-TS, AVI or bare, as packets or as decoded pictures.

::

    camera = ps.read(Video("front.mp4", table="frame", height=270, width=480, start="2026-01-31T12:00:00Z"))
    packets = ps.read(Video("front.mp4"))              # cam.encoded: Annex-B, to be stored or sent as it is

Decoding is state that runs through the whole stream, so one decoder reads it in order (with threads of its own) while
blocks are framed; scaling and conversion to RGB are done where blocks are decoded, several at once. Times are integers
from end to end: start + pts x time base, to the nearest ns.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.duration import Duration, nanoseconds
from ...pipeline.errors import FormatError, GraphError
from ...pipeline.schema import describe, event_schema, tensor_type
from ...pipeline.source import Decoded, Position, SourceReader, SourceSpec, Split
from ..storage.reread import number_behind, reread, rest_of_place
from ..storage.stored import PathLike, base_name, location
from ..storage.unpack import head_of
from ._video_format import CONTAINERS, container_of
from ._video_times import iso_ns, read_stamps, time_range
from .cdr import CAM_ENCODED

if TYPE_CHECKING:
    from ._video_demux import Demuxer, StreamInfo

__all__ = ["Video", "inspect_video", "is_video", "open_video"]

_TABLES = ("encoded", "frame")
_HEAD = 1 << 16
_NAME = pa.dictionary(pa.int16(), pa.utf8())
_SIZE_LIMIT = 1 << 14


@dataclass(frozen=True)
class Video(SourceSpec):
    """The first video stream of a file or URL.

    `table` is ``encoded`` (``cam.encoded``: one row a packet, in file order, which with B-frames is not the order of
    time) or ``frame`` (``cam.frame``: one row a picture in display order, `image` uint8 ``[height, width, 3]`` RGB,
    scaled by the decoder's scaler where `height` and `width` are given). Both have `pts` int64, null in bare streams.
    H.264 and H.265 packets are Annex-B, with the parameter sets in front of every key packet.

    ``ts_event`` is the time of pts 0 (of the first picture in MPEG-TS) plus pts x time base. That time is `start` (ISO
    8601 or ns since the epoch), else the file's creation time, else 0. `rate` (frames a second: ``25``, ``"30000/1001"``)
    replaces the times of the packets by row number / rate; bare streams, which hold no times, take what the codec says
    or 25. `timestamps` is a side-car file of one stamp a picture in display order: ns (.npy or text), or seconds
    behind `start` (floats in a .npy). ``ts_recv`` is the same.

    A packet that is damaged goes to quarantine with its number and byte; decoding goes on at the next key frame, and
    what is lost until then is counted. So does, of pictures, one of H.264 in front of which reference pictures are missing
    (its ``frame_num`` tells), as `ops.DecodeVideo` has it. `conceal` lets the decoder paint over damage and gaps instead.
    `threads` is for the decoder (0: as many as there are cores); rows do not depend on it. `container` (mp4, matroska,
    mpegts, avi, h264, h265, mjpeg) is told by content where not given. ``seq`` numbers packets, bad and lost ones included.

    Raises GraphError for wrong arguments; `schema` and `open` raise FormatError for a file that is no video, OSError, and
    MissingExtraError without the package ``av``. Schema: formats, section 6, items 2 and 7.
    """

    format: ClassVar[str] = "video"

    path: PathLike
    table: str = "encoded"
    _: KW_ONLY
    height: int | None = None
    width: int | None = None
    start: str | int | None = None
    timestamps: PathLike | None = None
    rate: str | int | Fraction | None = None
    topic: str | None = None
    frame_id: str = ""
    container: str | None = None
    conceal: bool = False
    threads: int = 0
    lateness: Duration = "1s"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))
        if self.timestamps is not None:
            object.__setattr__(self, "timestamps", location(self.timestamps))
        if self.table not in _TABLES:
            raise GraphError(f"Video has no table {self.table!r}; choose one of {', '.join(_TABLES)}")
        if (self.height is None) != (self.width is None):
            raise GraphError("give both height and width, or neither", got=(self.height, self.width))
        if self.height is not None and self.table == "encoded":
            raise GraphError('packets are not decoded, so height and width need table="frame"')
        for size in (self.height, self.width):
            if size is not None and not 0 < size <= _SIZE_LIMIT:
                raise GraphError(f"height and width are from 1 to {_SIZE_LIMIT} pixels", got=size)
        if self.container is not None and self.container not in CONTAINERS:
            raise GraphError(f"no container {self.container!r}; choose one of {', '.join(CONTAINERS)}")
        if self.threads < 0:
            raise GraphError("threads is 0 (as many as cores) or more", got=self.threads)
        if isinstance(self.start, str):
            try:
                object.__setattr__(self, "start", iso_ns(self.start))
            except ValueError as error:
                raise GraphError(f"start: {error}") from None
        if self.rate is not None:
            try:
                rate = Fraction(self.rate)
            except (ValueError, ZeroDivisionError, TypeError):
                rate = Fraction(0)
            if rate <= 0:
                raise GraphError("rate is frames a second, such as 25 or '30000/1001'", got=self.rate)
            object.__setattr__(self, "rate", rate)
        object.__setattr__(self, "lateness", nanoseconds(self.lateness))

    @property
    def lateness_ns(self) -> int:
        """`lateness` in ns: how far packets in decoding order lie behind the newest time."""
        return nanoseconds(self.lateness)

    @property
    def name(self) -> str:
        return base_name(self.path)

    @property
    def schema(self) -> pa.Schema:
        """See the class. Opens the file for ``frame`` without a size, and to tell whether it has a start time."""
        return self._schema(self._info())

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        from ._video_clock import VideoClock, ranks
        from ._video_decode import Pictures, State
        from ._video_demux import Demuxer
        from ._video_frames import FrameReader
        from ._video_packets import PacketReader

        path, container = location(self.path), self._container()
        demuxer = Demuxer(path, container)
        try:
            info = demuxer.info
            stamps = None
            if self.timestamps is not None:
                stamps = read_stamps(location(self.timestamps), self._start_ns or 0)
            clock = VideoClock(
                info,
                start_ns=self._start_ns,
                rate=Fraction(self.rate) if self.rate is not None else None,
                stamps=stamps,
                order=lambda: self._pass(path, container, ranks),
            )
            schema, names = self._schema(info), (self._topic, self.frame_id)
            if self.table == "encoded":
                return PacketReader(demuxer, schema, clock, names, context, position)
        except BaseException:
            demuxer.close()
            raise
        demuxer.close()
        pictures = Pictures(path, container, State.load(position or {}, path), self.threads, self.conceal)
        size = (self.width or info.width, self.height or info.height)
        return FrameReader(pictures, schema, clock, names, size, resize=self.width is not None, context=context)

    def retry(self, record: BadRecord) -> Decoded | None:
        """The packet that was put aside, or its picture, of the file as it is now.

        A picture is decoded with all before it. None for what is missing behind the end of a cut file.
        """
        from ._video_frames import FrameReader

        number = number_behind("packet", rest_of_place(record, self.path))
        if number is None or record.error.endswith("packets are missing"):
            return None
        reader = self.open(Context("retry"))
        if not isinstance(reader, FrameReader):
            return reread(reader, {number: record.seq or 0})
        try:
            return reader.reread(number, record.seq or 0)
        finally:
            reader.close()

    @property
    def block_bound(self) -> int:
        """A block of pictures as they are decoded and as RGB, with what the decoder holds; or packets, twice."""
        if self.table == "encoded":
            return 64 << 20
        info = self._info()
        decoded = info.width * info.height * 3
        shown = (self.width or info.width) * (self.height or info.height) * 3
        rows = max(1, (8 << 20) // shown)
        return rows * (decoded + shown) + 32 * decoded

    @property
    def _topic(self) -> str:
        return self.topic if self.topic is not None else self.name

    @property
    def _start_ns(self) -> int | None:
        return int(self.start) if self.start is not None else None

    def _container(self) -> str:
        return self.container or _found_container(location(self.path))

    def _info(self) -> StreamInfo:
        from ._video_demux import Demuxer

        demuxer = Demuxer(location(self.path), self._container())
        demuxer.close()
        return demuxer.info

    def _schema(self, info: StreamInfo) -> pa.Schema:
        known = self.start is not None or self.timestamps is not None or info.start_ns is not None
        clock = "utc" if known else "boot+offset"
        pts = pa.field("pts", pa.int64())
        fields: list[Any] = [*CAM_ENCODED, pts]
        if self.table == "frame":
            shape = (self.height or info.height, self.width or info.width, 3)
            fields = [("topic", _NAME), ("frame_id", _NAME), pa.field("image", tensor_type(pa.uint8(), shape)), pts]
        units = f"px; pts: {info.time_base} s" if info.timed else "px"
        kind = f"cam.{self.table}"
        return event_schema(fields, source=self.name, format=self.format, clock=clock, table=kind, units=units)

    @staticmethod
    def _pass(path: str, container: str, walk: Any) -> Any:
        from ._video_demux import Demuxer

        demuxer = Demuxer(path, container)
        try:
            return walk(demuxer)
        finally:
            demuxer.close()


def is_video(head: bytes) -> bool:
    """Whether a file that begins with `head` is mp4, mkv, MPEG-TS, AVI, bare H.264 or H.265, or a run of JPEG pictures.

    A run of JPEG pictures is told by its second one; where that is beyond `head`, give ``container="mjpeg"``.
    """
    return container_of(head) is not None


def open_video(path: PathLike, **options: Any) -> Video:
    """The source of a video file: its packets, or its pictures where ``height`` and ``width`` are given."""
    if options.get("height") is not None:
        options.setdefault("table", "frame")
    return Video(path, **options)


def inspect_video(path: PathLike) -> dict[str, Any]:
    """What a video file holds, from its packets; no picture is decoded.

    Keys: ``format``, ``container``, ``messages`` (packets), ``topics`` (by name: type, encoding, messages, table, schema),
    ``keyframes``, ``width``, ``height``, ``time`` (start, end as ISO 8601 and ns, seconds; None without packets),
    ``complete`` and ``problem`` (what is damaged, or None).
    """
    spec = Video(path)
    from ._video_demux import Demuxer

    demuxer = Demuxer(location(spec.path), spec._container())
    try:
        return _walked(spec, demuxer)
    finally:
        demuxer.close()


def _walked(spec: Video, demuxer: Demuxer) -> dict[str, Any]:
    from ._video_clock import VideoClock
    from ._video_gaps import Gaps

    info = demuxer.info
    gaps = Gaps(info) if info.codec == "h264" else None
    clock = VideoClock(info, start_ns=None, rate=None, stamps=None, order=lambda: None)
    count = keys = 0
    low, high, problem = None, None, ""
    for number, packet in demuxer.packets():
        count += 1
        if isinstance(packet, str) or packet.is_corrupt:
            problem = problem or f"packet {number} {packet if isinstance(packet, str) else 'is cut or damaged'}"
            continue
        keys += bool(packet.is_keyframe)
        if gaps is not None and (missing := gaps.before(bytes(packet))):
            problem = problem or f"packet {number}: {missing.partition(' (with')[0]}"
        try:
            when = clock.ns(number, packet.pts, number)
        except ValueError as error:
            problem = problem or f"packet {number}: {error}"
            continue
        low = when if low is None or when < low else low
        high = when if high is None or when > high else high
    if info.packets > count:
        problem = problem or f"the file ends behind packet {count} of {info.packets}"
    topic = {
        "type": info.codec,
        "encoding": info.container,
        "messages": count,
        "table": "cam.encoded",
        "schema": describe(spec._schema(info)),
    }
    return {
        "format": "video",
        "container": info.container,
        "messages": count,
        "topics": {spec.name: topic},
        "one_table": True,
        "hint": "these are rows of table='encoded'; table='frame' gives the pictures",
        "keyframes": keys,
        "width": info.width,
        "height": info.height,
        "time": time_range(low, high),
        "complete": not problem,
        "problem": problem or None,
    }


def _found_container(path: str) -> str:
    head, _ = head_of(path, _HEAD)
    found = container_of(head)
    if found is None and head[:3] == b"\xff\xd8\xff" and base_name(path).lower().endswith((".mjpeg", ".mjpg")):
        return "mjpeg"
    if found is None:
        what = f"begins with {head[:16].hex(' ')}" if head else "is empty (0 bytes)"
        names = ", ".join(CONTAINERS)
        raise FormatError(f"{path}: not a video file that is known: it {what}; give container= one of {names}")
    return found
