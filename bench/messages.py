"""Messages: ROS 2 messages of the hot sensor types from CDR to columns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ._message_columns import COLUMNS
from .bags import recorded_drive
from .harness import Case, Contender

__all__ = ["case"]

_RULES = (
    "The CDR payloads of a ROS 2 drive in memory, as bytes: can_msgs/Frame (40 bytes), sensor_msgs/Imu (316), "
    "CompressedImage (57 KB on average) and PointCloud2 (10 radar points on average). Process CPU time of one thread. "
    "`penstock` decodes all messages of a type as one block, `a few chunks at a time` those that lie in chunks of 4 MB "
    "together as one block, as the source does; both end in Arrow columns. `rosbags deserialize` ends in a Python "
    "object for each message, whose lists are views of a copy that slicing the bytes makes; `in the same "
    "columns` then makes of its objects, with numpy and pyarrow, the columns that hold data (stamps, frame_ids, "
    "picture bytes, points, axes, CAN ids and bytes), as a user would; they are checked to be equal. `penstock is x`: "
    "how many times as fast it was on that type in the same repeat."
)
_TYPES = {
    "can": "can_msgs/msg/Frame",
    "imu": "sensor_msgs/msg/Imu",
    "cloud": "sensor_msgs/msg/PointCloud2",
    "image": "sensor_msgs/msg/CompressedImage",
}
#: How often a type is decoded in a repeat, so that each takes some tens of milliseconds.
_TURNS = {"can": 2, "imu": 20, "cloud": 60, "image": 10}

#: Bytes of the chunks that the source makes one block.
_BLOCK = 4 << 20
#: Payloads of a type, and where each block's begin (and the last one's end).
Payloads = tuple[list[bytes], list[int]]
Work = Mapping[str, Callable[[], int]]


def case(scratch: Path, *, quick: bool) -> Case:
    payloads, definitions = _payloads(recorded_drive(scratch))
    turns = dict.fromkeys(_TURNS, 1) if quick else _TURNS
    ours = {
        name: _Timed(_penstock(payloads, definitions, chunked=chunked), turns)
        for name, chunked in (("penstock", False), ("penstock, a few chunks at a time", True))
    }
    theirs = {
        name: _Timed(_rosbags(payloads, definitions, columns=columns), turns, ours)
        for name, columns in (("rosbags deserialize", False), ("rosbags, in the same columns", True))
    }
    contenders = [Contender(name, timed.run, ours=True, values=timed.values) for name, timed in ours.items()]
    contenders += [Contender(name, t.run, needs=("rosbags",), values=t.values) for name, t in theirs.items()]
    return Case("messages", "CDR messages to columns", "message", _RULES, contenders, rates=False)


class _Timed:
    """Runs the work of each type in turn; keeps its rate, and how many times as fast `others` were just before."""

    def __init__(self, work: Work, turns: Mapping[str, int], others: Mapping[str, _Timed] | None = None) -> None:
        self._work, self._turns, self._others = work, turns, others or {}
        self.rates: dict[str, float] = {}

    def run(self) -> int:
        total = 0
        for kind, work in self._work.items():
            started = time.process_time()
            count = sum(work() for _ in range(self._turns[kind]))
            self.rates[kind] = count / (time.process_time() - started)
            total += count
        return total

    def values(self) -> dict[str, float]:
        found = {f"{kind}/s": rate for kind, rate in self.rates.items()}
        for name, other in self._others.items():
            found |= {f"{kind}: {name} is x": other.rates[kind] / rate for kind, rate in self.rates.items()}
        return found


def _payloads(file: Path) -> tuple[dict[str, Payloads], dict[str, str]]:
    from penstock.sources.driving._mcap_contents import catalog_of
    from penstock.sources.driving.mcap import Mcap

    kinds = {name: kind for kind, name in _TYPES.items()}
    described = catalog_of(str(file), 1 << 28).types
    found: dict[str, Payloads] = {kind: ([], [0]) for kind in _TYPES}
    size = 0
    for block in Mcap(file).messages():
        before, own = {kind: len(messages) for kind, (messages, _) in found.items()}, 0
        for channel, _, payload in block.each():
            own += len(payload)
            if channel is not None and (kind := kinds.get(described[channel.type_id].name)) is not None:
                found[kind][0].append(payload)
        if size and size + own > _BLOCK:
            size = 0
            for kind, (_, starts) in found.items():
                starts.append(before[kind])
        size += own
    for messages, starts in found.values():
        starts.append(len(messages))
    return found, {kinds[t.name]: t.data.decode() for t in described.values() if t.name in kinds}


def _penstock(payloads: Mapping[str, Payloads], definitions: Mapping[str, str], *, chunked: bool) -> Work:
    from penstock.pipeline.memory import BufferPool

    pool = BufferPool()
    work = {}
    for kind, (messages, starts) in payloads.items():
        parts = [messages[a:b] for a, b in pairwise(starts) if b > a] if chunked else [messages]
        work[kind] = _decoding(_decoder(kind, definitions), [_block(part, pool) for part in parts])
    return work


def _decoder(kind: str, definitions: Mapping[str, str]) -> Any:
    from penstock.sources.driving.cdr import table_for

    text = definitions[kind].encode()
    return table_for("/topic", "cdr", _TYPES[kind], "ros2msg", text, source="bench", format="mcap").decoder()


def _block(messages: Sequence[bytes], pool: Any) -> tuple[Any, ...]:
    lengths = np.array([len(message) for message in messages])
    data = np.frombuffer(bytearray(b"".join(messages)), np.uint8)
    return data, np.cumsum(lengths) - lengths, lengths, np.arange(len(messages)), 0, pool


def _decoding(decoder: Any, blocks: Sequence[tuple[Any, ...]]) -> Callable[[], int]:
    return lambda: sum(int(decoder(*block).batch.num_rows) for block in blocks)


def _rosbags(payloads: Mapping[str, Payloads], definitions: Mapping[str, str], *, columns: bool = False) -> Work:
    try:
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore
    except ImportError:  # the harness says so
        return {}
    store = get_typestore(Stores.LATEST)
    for kind, text in definitions.items():
        types = get_types_from_msg(text, _TYPES[kind])
        store.register({name: fields for name, fields in types.items() if name not in store.fielddefs})

    def objects(kind: str) -> list[Any]:
        deserialize, name = store.deserialize_cdr, _TYPES[kind]
        return [deserialize(message, name) for message in payloads[kind][0]]

    def deserializing(kind: str) -> Callable[[], int]:
        return lambda: len(objects(kind))

    def in_columns(kind: str) -> Callable[[], int]:
        _compare(kind, COLUMNS[kind](objects(kind)), payloads[kind][0], definitions)
        return lambda: int(COLUMNS[kind](objects(kind)).num_rows)

    return {kind: (in_columns if columns else deserializing)(kind) for kind in payloads if payloads[kind][0]}


def _compare(kind: str, theirs: Any, messages: Sequence[bytes], definitions: Mapping[str, str]) -> None:
    """Raises ValueError unless the columns of both sides are equal."""
    from penstock.pipeline.memory import BufferPool

    ours = _decoder(kind, definitions)(*_block(messages, BufferPool())).batch
    for name in theirs.schema.names:
        if not theirs[name].equals(_plain(ours[name])):
            raise ValueError(f"{kind}: column {name!r} is not what rosbags gives")


def _plain(column: Any) -> Any:
    import pyarrow as pa

    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
