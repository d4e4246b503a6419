"""The decoders of the tables that `cdr` knows by name (radar scans have a module of their own)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from ...pipeline.columns import ColumnBlock
from ...pipeline.memory import BufferPool
from . import _cdr_image_kernels as image
from ._cdr_kernels import can_frames, imu_samples
from ._cdr_rows import BAD_TIME, Array, bad_rows, bools, frame_ids, interned, large_binary, take_rows
from ._cdr_scans import Scans
from .cdr import MessageDecoder, Messages, bus_of

__all__ = ["DECODERS"]


class _Decoder:
    def __init__(self, schema: pa.Schema, topic: str, most: int) -> None:
        self.schema, self.topic, self._most = schema, topic, most
        self._topics = pa.array([topic], pa.utf8())


class CanFrames(_Decoder):
    """can_msgs/msg/Frame to `can.frame`."""

    def __call__(
        self, data: Array, starts: Array, lengths: Array, log_times: Array, first: int, pool: BufferPool
    ) -> Messages:
        rows = len(starts)
        block, status, ext = ColumnBlock(pool, self.schema, rows), np.zeros(rows, np.uint8), np.zeros(rows, np.uint8)
        count = can_frames(
            data, starts, lengths, log_times, self._most, first, bus_of(self.topic), status,
            block["ts_event"], block["ts_recv"], block["seq"],
            block["bus"], block["can_id"], ext, block["len"], block["data"],
        )  # fmt: skip
        columns = {"ext": bools(ext[:count]), "fd": bools(np.zeros(count, np.uint8))}
        return Messages(block.batch(count, columns=columns), bad_rows(status))


class ImuSamples(_Decoder):
    """sensor_msgs/msg/Imu to `imu`."""

    def __call__(
        self, data: Array, starts: Array, lengths: Array, log_times: Array, first: int, pool: BufferPool
    ) -> Messages:
        rows = len(starts)
        block, status = ColumnBlock(pool, self.schema, rows), np.zeros(rows, np.uint8)
        count = imu_samples(
            data, starts, lengths, log_times, self._most, first, status, block["ts_event"], block["ts_recv"], block["seq"],
            block["acc"].view(np.int64), block["gyro"].view(np.int64),
        )  # fmt: skip
        block["topic"][:count] = 0
        return Messages(block.batch(count, dictionaries={"topic": self._topics}), bad_rows(status))


class Images(_Decoder):
    """sensor_msgs/msg/CompressedImage to `cam.encoded`."""

    def __call__(
        self, data: Array, starts: Array, lengths: Array, log_times: Array, first: int, pool: BufferPool
    ) -> Messages:
        rows = len(starts)
        status = np.zeros(rows, np.uint8)
        ts_event, id_at, id_size, format_at, format_size, data_at, data_size = np.empty((7, rows), np.int64)
        image.images(
            data,
            starts,
            lengths,
            log_times,
            self._most,
            status,
            ts_event,
            id_at,
            id_size,
            format_at,
            format_size,
            data_at,
            data_size,
        )
        good = np.flatnonzero(status == 0)
        codes, ids = frame_ids(data, id_at[good], id_size[good], status, good)
        codes, good = codes[status[good] == 0], good[status[good] == 0]
        count = len(good)
        codec, codecs = self._codecs(data, format_at[good], format_size[good])
        block, key = ColumnBlock(pool, self.schema, count), np.zeros(count, np.uint8)
        at, size = data_at[good], data_size[good]
        image.look(data, at, size, codec, block["width"], block["height"], key)
        take_rows(block, good, first, ts_event, log_times)
        block["topic"][:], block["frame_id"][:], block["codec"][:] = 0, codes, codec
        pictures, copied = large_binary(data, at, size, pool)
        sized = block["width"] > 0
        batch = block.batch(
            count,
            dictionaries={"topic": self._topics, "frame_id": ids, "codec": codecs},
            columns={"keyframe": bools(key), "data": pictures},
            valid={} if sized.all() else {"width": sized, "height": sized},
        )
        return Messages(batch, bad_rows(status), copied)

    def _codecs(self, data: Array, at: Array, size: Array) -> tuple[Array, pa.Array]:
        codes, values = interned(data, at, size)
        known = ["jpeg", "png", "h264", "h265"]
        mapped = np.empty(len(values) + 1, np.int64)
        for code, value in enumerate(values):
            name = _codec_name(value)
            if name not in known:
                name = name if len(known) < 120 else "unknown"
                known += [name] if name not in known else []
            mapped[code] = known.index(name)
        known += ["unknown"] if (codes < 0).any() and "unknown" not in known else []
        mapped[-1] = known.index("unknown") if "unknown" in known else 0
        return mapped[codes], pa.array(known, pa.utf8())


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

    def __call__(
        self, data: Array, starts: Array, lengths: Array, log_times: Array, first: int, pool: BufferPool
    ) -> Messages:
        status = np.where(log_times < 0, BAD_TIME, 0)
        good = np.flatnonzero(status == 0)
        block = ColumnBlock(pool, self.schema, len(good))
        take_rows(block, good, first, log_times, log_times)
        block["topic"][:] = 0
        payloads, copied = large_binary(data, starts[good], lengths[good], pool)
        batch = block.batch(len(good), dictionaries={"topic": self._topics}, columns={"data": payloads})
        return Messages(batch, bad_rows(status), copied)


DECODERS: dict[str, Callable[[pa.Schema, str, int], MessageDecoder]] = {
    "cam.encoded": Images,
    "radar.scan": Scans,
    "imu": ImuSamples,
    "can.frame": CanFrames,
    "raw": RawMessages,
}
