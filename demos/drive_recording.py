"""A recorded drive that is made up: an MCAP file as a ROS 2 recorder writes it, the same bytes for the same arguments.

Camera and radar see the same road (`_drive_scene`), each on its own clock: never at the same instant, with jitter, and
logged some milliseconds after the measurement, so that log times and header stamps differ as in a real recording.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..pipeline.errors import MissingExtraError
from ._drive_scene import EGO_SPEED, Camera, Traffic, draws
from ._ros_messages import DEFINITIONS, can_frame, compressed_image, imu, point_cloud

__all__ = ["CAMERA", "CAN", "IMU", "RADAR", "START_NS", "write_drive"]

CAMERA, RADAR, IMU = "/camera/front/image_raw/compressed", "/radar/front/points", "/imu"
CAN = ("/can/bus0", "/can/bus1")
#: 2024-01-01T00:00:00Z
START_NS = 1_704_067_200_000_000_000

_IMAGE, _CLOUD, _IMU, _FRAME = DEFINITIONS
_JPEG_QUALITY = 85
#: Bytes of a corrupted frame that stay as they were: enough to look like a JPEG, too few to be one.
_CORRUPT_FROM = 120


@dataclass(frozen=True, slots=True)
class _Stream:
    """A topic: when its messages were measured and logged, and how the i-th is made."""

    topic: str
    type: str
    stamps: npt.NDArray[np.int64]
    logged: npt.NDArray[np.int64]
    message: Callable[[int, int], bytes]


def write_drive(
    path: str | os.PathLike[str],
    *,
    seconds: float = 10.0,
    seed: int = 0,
    camera_hz: float = 25.0,
    radar_hz: float = 20.0,
    width: int = 960,
    height: int = 540,
    corrupt_frame: int | None = None,
) -> dict[str, int]:
    """Write an MCAP file (zstd chunks, profile ros2) and return its number of messages by topic.

    JPEG frames of ``width x height`` at `camera_hz`, PointCloud2 scans at `radar_hz`, Imu at 100 Hz, can_msgs/Frame on two
    buses. `corrupt_frame` is the number of a camera frame whose JPEG is destroyed while its message stays whole. The
    file appears under its name when it is complete.
    """
    if not seconds > 0 or not camera_hz > 0 or not radar_hz > 0:
        raise ValueError(f"{seconds=}, {camera_hz=} and {radar_hz=} must be positive")
    if not (32 <= width <= 8192 and 32 <= height <= 8192):
        raise ValueError(f"a picture of {width}x{height} is not from 32 to 8192 pixels a side")
    traffic = Traffic(seed)
    camera = Camera(traffic, seed, width, height)
    streams = [
        _camera_stream(camera, seconds, seed, camera_hz, corrupt_frame),
        _radar_stream(traffic, seconds, seed, radar_hz),
        _imu_stream(seconds, seed),
        *(_can_stream(bus, seconds, seed) for bus in range(len(CAN))),
    ]
    target = Path(path)
    partial = target.with_name(target.name + ".partial")
    try:
        with partial.open("wb") as file:
            _write(file, streams)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return {stream.topic: len(stream.stamps) for stream in streams}


def _write(file: Any, streams: list[_Stream]) -> None:
    try:
        from mcap.writer import CompressionType, Writer
    except ImportError:
        raise MissingExtraError("writing a recording", "mcap", None) from None

    writer: Any = Writer(file, chunk_size=1 << 20, compression=CompressionType.ZSTD)
    writer.start(profile="ros2", library="penstock")
    types: dict[str, int] = {}
    channels = []
    for stream in streams:
        if stream.type not in types:
            types[stream.type] = writer.register_schema(stream.type, "ros2msg", DEFINITIONS[stream.type].encode())
        channels.append(writer.register_channel(stream.topic, "cdr", types[stream.type], {"offered_qos_profiles": ""}))
    owner = np.concatenate([np.full(len(stream.stamps), i) for i, stream in enumerate(streams)])
    index = np.concatenate([np.arange(len(stream.stamps)) for stream in streams])
    order = np.lexsort((index, owner, np.concatenate([stream.logged for stream in streams])))
    for k in order.tolist():
        stream, i = streams[owner[k]], int(index[k])
        stamp, logged = int(stream.stamps[i]), int(stream.logged[i])
        writer.add_message(channels[owner[k]], logged, stream.message(i, stamp), logged, i)
    writer.finish()


def _times(
    seconds: float, seed: int, stream: int, hz: float, offset: float, jitter: float, latency: tuple[float, float]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Stamps at `hz` with `jitter` (s, either way), and log times that follow within the bounds of `latency`."""
    count = int((seconds - offset) * hz) + 1 if seconds > offset else 0
    u = draws(seed, stream, 0, 2 * count).reshape(2, count)
    at = (offset + np.arange(count) / hz + jitter * (2 * u[0] - 1)) * 1e9
    late = (latency[0] + (latency[1] - latency[0]) * u[1]) * 1e9
    stamps = START_NS + at.astype(np.int64)
    # One sensor's messages are logged in the order in which they were sent.
    return stamps, np.maximum.accumulate(stamps + late.astype(np.int64))


def _camera_stream(camera: Camera, seconds: float, seed: int, hz: float, corrupt: int | None) -> _Stream:
    try:
        from simplejpeg import encode_jpeg
    except ImportError:
        raise MissingExtraError("encoding camera frames", "simplejpeg", None) from None

    def message(i: int, stamp: int) -> bytes:
        jpeg: bytes = encode_jpeg(camera.frame(_since_start(stamp)), quality=_JPEG_QUALITY, colorsubsampling="420")
        if i == corrupt:
            jpeg = jpeg[:_CORRUPT_FROM] + bytes(len(jpeg) - _CORRUPT_FROM)
        return compressed_image(stamp, "cam_front", "jpeg", jpeg)

    stamps, logged = _times(seconds, seed, 10, hz, 0.002, min(0.002, 0.2 / hz), (0.012, 0.025))
    if corrupt is not None and not 0 <= corrupt < len(stamps):
        raise ValueError(f"corrupt_frame={corrupt} is not one of the {len(stamps)} frames")
    return _Stream(CAMERA, _IMAGE, stamps & ~1, logged, message)


def _radar_stream(traffic: Traffic, seconds: float, seed: int, hz: float) -> _Stream:
    def message(i: int, stamp: int) -> bytes:
        return point_cloud(stamp, "radar_front", traffic.scan(_since_start(stamp), draws(seed, 21, i, 160)))

    stamps, logged = _times(seconds, seed, 20, hz, 0.009, min(0.003, 0.2 / hz), (0.003, 0.006))
    return _Stream(RADAR, _CLOUD, stamps | 1, logged, message)  # camera stamps are even: never the same instant


def _imu_stream(seconds: float, seed: int) -> _Stream:
    def message(i: int, stamp: int) -> bytes:
        t, u = _since_start(stamp), draws(seed, 31, i, 6) - 0.5
        acc = (0.3 * np.sin(0.8 * t) + 0.1 * u[0], 0.05 * u[1], 9.81 + 0.1 * u[2])
        gyro = (0.01 * u[3], 0.01 * u[4], 0.02 * np.sin(0.5 * t) + 0.005 * u[5])
        return imu(stamp, "imu", acc, gyro)

    stamps, logged = _times(seconds, seed, 30, 100.0, 0.001, 0.0005, (0.0005, 0.002))
    return _Stream(IMU, _IMU, stamps, logged, message)


def _can_stream(bus: int, seconds: float, seed: int) -> _Stream:
    """Bus 0: speed, steering and engine at 100 Hz each; bus 1: radar status with an extended id at 100 Hz."""
    ids = ((0x1A0, 0x0C2, 0x0C9), (0x18FF50E5,))[bus]

    def message(i: int, stamp: int) -> bytes:
        t, can_id, counter = _since_start(stamp), ids[i % len(ids)], i // len(ids)
        if can_id == 0x1A0:
            data = struct.pack(">HHHH", int(EGO_SPEED * 100), int(EGO_SPEED * 100), 0, counter & 0xFFFF)
        elif can_id == 0x0C2:
            data = struct.pack(">hhI", int(300 * np.sin(0.5 * t)), int(50 * np.cos(0.5 * t)), counter & 0xFFFFFFFF)
        elif can_id == 0x0C9:
            data = struct.pack(">HBB", 2100 + int(60 * np.sin(0.8 * t)), 80, counter & 0xFF)
        else:
            data = struct.pack(">IBB", counter & 0xFFFFFFFF, 1, 0)
        return can_frame(stamp, f"can{bus}", can_id, data, extended=can_id > 0x7FF)

    stamps, logged = _times(seconds, seed, 40 + bus, 100.0 * len(ids), 0.0005, 0.0002, (0.0002, 0.0004))
    return _Stream(CAN[bus], _FRAME, stamps, logged, message)


def _since_start(stamp: int) -> float:
    return (stamp - START_NS) / 1e9
