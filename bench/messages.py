"""Messages: ROS 2 messages of the hot sensor types from CDR to columns."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .bags import recorded_drive
from .harness import Case, Contender

__all__ = ["case"]

_RULES = (
    "The CDR payloads of a ROS 2 drive in memory (can_msgs/Frame, sensor_msgs/Imu, CompressedImage and PointCloud2), one "
    "thread. Penstock gives Arrow columns, with frame_ids as dictionaries, pictures gathered and points as structs; rosbags "
    "gives a Python object for each message, whose pictures and points are views. Rates by type are given beside."
)
_TYPES = {
    "can_msgs/msg/Frame": "can",
    "sensor_msgs/msg/Imu": "imu",
    "sensor_msgs/msg/CompressedImage": "image",
    "sensor_msgs/msg/PointCloud2": "cloud",
}

Payloads = dict[str, list[bytes]]


def case(scratch: Path, *, quick: bool) -> Case:
    payloads, definitions = _payloads(recorded_drive(scratch))
    turns = 1 if quick else 5
    ours, theirs = _Timed(_penstock(payloads, definitions), turns), _Timed(_rosbags(payloads, definitions), turns)
    contenders = [
        Contender("penstock", ours.run, ours=True, values=ours.values),
        Contender("rosbags deserialize", theirs.run, needs=("rosbags",), values=theirs.values),
    ]
    return Case("messages", "CDR messages to columns", "message", _RULES, contenders)


class _Timed:
    """Runs the work of each type in turn and keeps its rate."""

    def __init__(self, work: dict[str, Callable[[], int]], turns: int) -> None:
        self._work, self._turns = work, turns
        self._rates: dict[str, float] = {}

    def run(self) -> int:
        total = 0
        for kind, work in self._work.items():
            started = time.perf_counter()
            count = sum(work() for _ in range(self._turns))
            self._rates[f"{kind}/s"] = count / (time.perf_counter() - started)
            total += count
        return total

    def values(self) -> dict[str, float]:
        return dict(self._rates)


def _payloads(file: Path) -> tuple[Payloads, dict[str, str]]:
    from mcap.reader import make_reader

    payloads: Payloads = {}
    definitions: dict[str, str] = {}
    with file.open("rb") as stream:
        for schema, _, message in make_reader(stream).iter_messages():
            if schema is not None and schema.name in _TYPES:
                payloads.setdefault(schema.name, []).append(message.data)
                definitions[schema.name] = schema.data.decode()
    return payloads, definitions


def _penstock(payloads: Payloads, definitions: dict[str, str]) -> dict[str, Callable[[], int]]:
    from penstock.pipeline.memory import BufferPool
    from penstock.sources.driving.cdr import table_for

    pool, work = BufferPool(), {}
    for kind, messages in payloads.items():
        text = definitions[kind].encode()
        decoder = table_for("/topic", "cdr", kind, "ros2msg", text, source="bench", format="mcap").decoder()
        lengths = np.array([len(message) for message in messages])
        arguments: tuple[Any, ...] = (
            np.frombuffer(b"".join(messages), np.uint8),
            np.cumsum(lengths) - lengths,
            lengths,
            np.arange(len(messages)),
            0,
            pool,
        )
        work[_TYPES[kind]] = _decoding(decoder, arguments)
    return work


def _decoding(decoder: Any, arguments: tuple[Any, ...]) -> Callable[[], int]:
    return lambda: int(decoder(*arguments).batch.num_rows)


def _rosbags(payloads: Payloads, definitions: dict[str, str]) -> dict[str, Callable[[], int]]:
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.LATEST)
    for kind, text in definitions.items():
        store.register({k: v for k, v in get_types_from_msg(text, kind).items() if k not in store.fielddefs})

    def deserializing(kind: str) -> Callable[[], int]:
        deserialize, messages = store.deserialize_cdr, payloads[kind]
        return lambda: len([deserialize(message, kind) for message in messages])

    return {_TYPES[kind]: deserializing(kind) for kind in payloads}
