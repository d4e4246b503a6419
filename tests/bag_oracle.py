"""ROS bags as `rosbags` reads them, and small bags of every shape, to check sources against."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag1 import Reader as Bag1Reader
from rosbags.rosbag1 import Writer as Bag1Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Reader as Bag2Reader
from rosbags.rosbag2 import Writer as Bag2Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

__all__ = ["EVENT_FIELDS", "bag1_messages", "bag2_messages", "plain", "same", "write_bag1", "write_bag2"]

EVENT_FIELDS = ("ts_event", "ts_recv", "seq", "topic")

_ROS1, _ROS2 = get_typestore(Stores.ROS1_NOETIC), get_typestore(Stores.LATEST)

Message = tuple[int, Any]


def plain(value: Any) -> Any:
    """A message of `rosbags` as dictionaries, lists and numbers, without its constants (in capitals)."""
    if is_dataclass(value):
        names = [field.name for field in fields(value) if not field.name.isupper() and field.name[0] != "_"]
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def same(ours: Any, theirs: Any) -> bool:
    """Equal in every field; NaN equals NaN."""
    if isinstance(theirs, Mapping):
        return len(ours) == len(theirs) and all(same(a, b) for a, b in zip(ours.values(), theirs.values(), strict=True))
    if isinstance(theirs, (list, tuple)):
        return len(ours) == len(theirs) and all(same(a, b) for a, b in zip(ours, theirs, strict=True))
    if isinstance(theirs, float) and math.isnan(theirs):
        return isinstance(ours, float) and math.isnan(ours)
    return bool(ours == theirs)


def bag1_messages(path: Path) -> dict[str, list[Message]]:
    """(time, fields) by topic, in order of time."""
    found: dict[str, list[Message]] = {}
    store = get_typestore(Stores.EMPTY)
    store.register({k: v for k, v in _ROS1.fielddefs.items() if k.startswith(("builtin", "std_msgs/msg/Header"))})
    with Bag1Reader(path) as reader:
        for connection in reader.connections:
            kinds = get_types_from_msg(connection.msgdef.data, connection.msgtype)
            store.register({k: v for k, v in kinds.items() if k not in store.fielddefs})
            found[connection.topic] = []
        for connection, time, raw in reader.messages():
            found[connection.topic].append((time, plain(store.deserialize_ros1(raw, connection.msgtype))))
    return found


def bag2_messages(path: Path | Sequence[Path], extra: Mapping[str, str] | None = None) -> dict[str, list[Message]]:
    """(time, fields) by topic, in order of time; `extra` are definitions of types that are not ROS's own."""
    store = get_typestore(Stores.LATEST)
    for name, text in (extra or {}).items():
        kinds = {k.replace("/srv/msg/", "/srv/"): v for k, v in get_types_from_msg(text, name).items()}
        store.register({k: v for k, v in kinds.items() if k not in store.fielddefs})
    found: dict[str, list[Message]] = {}
    if isinstance(path, Path) and path.is_dir():
        with Bag2Reader(path) as reader:
            for connection, time, raw in reader.messages():
                message = plain(store.deserialize_cdr(raw, connection.msgtype))
                found.setdefault(connection.topic, []).append((time, message))
        return found
    from rosbags.rosbag2.storage_mcap import McapReader
    from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader

    for file in [path] if isinstance(path, Path) else path:
        storage = (McapReader if file.suffix == ".mcap" else Sqlite3Reader)(file)
        storage.open()
        for connection, time, raw in storage.messages(storage.connections):
            message = plain(store.deserialize_cdr(bytes(raw), connection.msgtype))
            found.setdefault(connection.topic, []).append((time, message))
        storage.close()
    return found


def imu(number: int, *, seq: bool) -> Any:
    """An sensor_msgs/Imu with different numbers everywhere."""
    store = _ROS1 if seq else _ROS2
    kinds = store.types
    time = kinds["builtin_interfaces/msg/Time"](sec=5, nanosec=number)
    counter = {"seq": number} if seq else {}
    header = kinds["std_msgs/msg/Header"](**counter, stamp=time, frame_id="imu" + "u" * (number % 5))
    vector, quaternion = kinds["geometry_msgs/msg/Vector3"], kinds["geometry_msgs/msg/Quaternion"]
    zeros = np.zeros(9)
    return kinds["sensor_msgs/msg/Imu"](
        header=header,
        orientation=quaternion(x=0.0, y=0.0, z=0.0, w=1.0),
        orientation_covariance=zeros,
        angular_velocity=vector(x=number + 0.25, y=number + 0.5, z=number + 0.75),
        angular_velocity_covariance=zeros,
        linear_acceleration=vector(x=-number + 0.25, y=-number + 0.5, z=-number + 0.75),
        linear_acceleration_covariance=zeros,
    )


def write_bag1(path: Path, count: int = 12, *, compression: str = "none", chunk_bytes: int = 600) -> bytes:
    """A ROS 1 bag of `count` texts and `count` IMU samples in turn, in chunks of a few messages."""
    writer = Bag1Writer(path)
    if compression != "none":
        writer.set_compression(Bag1Writer.CompressionFormat[compression.upper()])
    writer.chunk_threshold = chunk_bytes
    kinds = _ROS1.types
    with writer:
        text = writer.add_connection("/chatter", "std_msgs/msg/String", typestore=_ROS1)
        samples = writer.add_connection("/imu", "sensor_msgs/msg/Imu", typestore=_ROS1)
        for i in range(count):
            message = kinds["std_msgs/msg/String"](data=f"message {i}")
            writer.write(text, 1000 + 10 * i, _ROS1.serialize_ros1(message, "std_msgs/msg/String"))
            writer.write(samples, 1005 + 10 * i, _ROS1.serialize_ros1(imu(i, seq=True), "sensor_msgs/msg/Imu"))
    return path.read_bytes()


def write_bag2(
    folder: Path, count: int = 12, *, storage: str = "sqlite3", compression: str = "none", version: int = 9
) -> Path:
    """A rosbag2 folder of `count` texts and `count` IMU samples in turn."""
    writer = Bag2Writer(folder, version=version, storage_plugin=StoragePlugin[storage.upper()])
    if compression != "none":
        writer.set_compression(CompressionMode[compression.upper()], CompressionFormat.ZSTD)
    kinds = _ROS2.types
    with writer:
        text = writer.add_connection("/chatter", "std_msgs/msg/String", typestore=_ROS2)
        samples = writer.add_connection("/imu", "sensor_msgs/msg/Imu", typestore=_ROS2)
        for i in range(count):
            message = kinds["std_msgs/msg/String"](data=f"message {i}")
            writer.write(text, 1000 + 10 * i, _ROS2.serialize_cdr(message, "std_msgs/msg/String"))
            writer.write(samples, 1005 + 10 * i, _ROS2.serialize_cdr(imu(i, seq=False), "sensor_msgs/msg/Imu"))
    return folder
