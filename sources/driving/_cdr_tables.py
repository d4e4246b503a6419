"""The decoders of the tables that `cdr` knows by name (radar scans have a module of their own)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from ...pipeline.columns import ColumnLayout
from ...pipeline.memory import BufferPool
from . import _cdr_image_kernels as image
from ._cdr_columns import bools, zeros
from ._cdr_kernels import can_frames, imu_samples
from ._cdr_rows import BAD_NAME, BAD_TIME, FEW, Array, FrameIds, bad_rows, interned, large_binary
from ._cdr_scans import Scans
from .cdr import MessageDecoder, Messages, bus_of

__all__ = ["DECODERS"]


class _Decoder:
    #: Columns that are not filled row by row.
    ready: tuple[str, ...] = ()

    def __init__(self, schema: pa.Schema, topic: str, most: int) -> None:
        self.topic, self._most = topic, most
        self._columns = ColumnLayout(schema, ready=self.ready)
        self._topics = pa.array([topic], pa.utf8())


class CanFrames(_Decoder):
    """can_msgs/msg/Frame to `can.frame`."""

    ready = ("ext", "fd")

    def __call__(
        self, data: Array, starts: Array, lengths: Array, log_times: Array, first: int, pool: BufferPool
    ) -> Messages:
        rows = len(starts)
        block, status, ext = self._columns.take(pool, rows), np.zeros(rows, np.uint8), np.zeros(rows, np.uint8)
        count = can_frames(
            data, starts, lengths, log_times, self._most, first, bus_of(self.topic), status,
            block["ts_event"], block["ts_recv"], block["seq"],
            block["bus"], block["can_id"], ext, block["len"], block["data"],
        )  # fmt: skip
        never = pa.Array.from_buffers(pa.bool_(), count, [None, zeros(-(-count // 8))])
        return Messages(block.batch(count, columns={"ext": bools(ext[:count]), "fd": never}), bad_rows(status, count))


class ImuSamples(_Decoder):
    """sensor_msgs/msg/Imu to `imu`."""

    def __call__(
        self, data: Array, starts: Array, lengths: Array, log_times: Array, first: int, pool: BufferPool
    ) -> Messages:
        rows = len(starts)
        block, status = self._columns.take(pool, rows), np.zeros(rows, np.uint8)
        count = imu_samples(
            data, starts, lengths, log_times, self._most, first, status, block["ts_event"], block["ts_recv"], block["seq"],
            block["acc"].view(np.int64), block["gyro"].view(np.int64),
        )  # fmt: skip
        block["topic"][:count] = 0
        return Messages(block.batch(count, dictionaries={"topic": self._topics}), bad_rows(status, count))


class Images(_Decoder):
    """sensor_msgs/msg/CompressedImage to `cam.encoded`."""

    ready = ("keyframe", "data")

    def __init__(self, schema: pa.Schema, topic: str, most: int) -> None:
        super().__init__(schema, topic, most)
        self._frame_ids, self._codecs = FrameIds(), _Codecs()

    def __call__(
        self, data: Array, starts: Array, lengths: Array, log_times: Array, first: int, pool: BufferPool
    ) -> Messages:
        rows = len(starts)
        block, status = self._columns.take(pool, rows), np.zeros(rows, np.uint8)
        places = np.empty((6, rows), np.int64)
        while True:
            count = image.images(
                data, starts, lengths, log_times, self._most, first, status,
                block["ts_event"], block["ts_recv"], block["seq"], places,
            )  # fmt: skip
            id_at, id_size, format_at, format_size, at, size = places[:, :count]
            frame_ids, ids, bad = self._frame_ids(data, id_at, id_size)
            if bad is None:
                break
            status[np.flatnonzero(status == 0)[bad]] = BAD_NAME
        codes, codecs = self._codecs(data, format_at, format_size)
        block["topic"][:count], block["frame_id"][:count], block["codec"][:count] = 0, frame_ids, codes
        key = np.zeros(count, np.uint8)
        sized = image.look(data, at, size, block["codec"], block["width"], block["height"], key)
        pictures, copied = large_binary(data, at, size, pool)
        there = block["width"][:count] > 0
        batch = block.batch(
            count,
            columns={"keyframe": bools(key), "data": pictures},
            dictionaries={"topic": self._topics, "frame_id": ids, "codec": codecs},
            valid={} if sized == count else {"width": there, "height": there},
        )
        return Messages(batch, bad_rows(status, count), copied)


class _Codecs:
    """What format texts say about the codec; the last answer is kept, since most blocks have the same. Thread-safe."""

    def __init__(self) -> None:
        self._last: tuple[list[bytes], Array, pa.Array] = ([], *_codecs_of([], False))

    def __call__(self, data: Array, at: Array, size: Array) -> tuple[Array, pa.Array]:
        """A code for each text, and the names by code."""
        codes, values = interned(data, at, size)
        known, mapped, names = self._last
        if values != known:
            uncoded = bool((codes < 0).any())
            mapped, names = _codecs_of(values, uncoded)
            if len(values) <= FEW:
                self._last = values, mapped, names
        return mapped[codes], names


def _codecs_of(formats: list[bytes], uncoded: bool) -> tuple[Array, pa.Array]:
    """The code of each format text, behind them that of one without a code, and the names by code."""
    known = ["jpeg", "png", "h264", "h265"]
    mapped = np.empty(len(formats) + 1, np.int64)
    for code, value in enumerate(formats):
        name = _codec_name(value)
        if name not in known:
            name = name if len(known) < 120 else "unknown"
            known += [name] if name not in known else []
        mapped[code] = known.index(name)
    known += ["unknown"] if uncoded and "unknown" not in known else []
    mapped[-1] = known.index("unknown") if "unknown" in known else 0
    return mapped, pa.array(known, pa.utf8())


def _codec_name(format: bytes) -> str:
    text = format.decode("utf-8", "replace").strip().lower()
    for name, signs in _CODECS:
        if any(sign in text for sign in signs):
            return name
    return text[:64] or "unknown"


_CODECS = (
    ("compressed_depth", ("compresseddepth",)),
    ("h264", ("h264", "h.264", "avc")),
    ("h265", ("h265", "h.265", "hevc")),
    ("jpeg", ("jpeg", "jpg")),
    ("png", ("png",)),
)


class RawMessages(_Decoder):
    """Any message to `raw`: its bytes, timed by the recorder."""

    ready = ("data",)

    def __call__(
        self, data: Array, starts: Array, lengths: Array, log_times: Array, first: int, pool: BufferPool
    ) -> Messages:
        status = np.where(log_times < 0, BAD_TIME, 0)
        good = np.flatnonzero(status == 0)
        block = self._columns.take(pool, len(good))
        block["ts_event"][:] = block["ts_recv"][:] = log_times[good]
        block["seq"][:] = good + first
        block["topic"][:] = 0
        payloads, copied = large_binary(data, starts[good], lengths[good], pool)
        batch = block.batch(len(good), columns={"data": payloads}, dictionaries={"topic": self._topics})
        return Messages(batch, bad_rows(status, len(good)), copied)


DECODERS: dict[str, Callable[[pa.Schema, str, int], MessageDecoder]] = {
    "cam.encoded": Images,
    "radar.scan": Scans,
    "imu": ImuSamples,
    "can.frame": CanFrames,
    "raw": RawMessages,
}
