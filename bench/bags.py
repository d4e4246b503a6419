"""Bags: every message of an MCAP recording as it was recorded, undecoded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .harness import Case, Contender
from .recordings import real

__all__ = ["case", "recorded_drive"]

_RULES = (
    "A ROS 2 drive (camera, radar, CAN, IMU; zstd chunks) in the page cache, opened anew each time, its summary read "
    "anew, and read to the end on one thread: log time, topic and payload of every message, none decoded. Every run "
    "is checked to have read the same messages and payload bytes. Penstock gives arrays of times, channels and places "
    "in the unpacked bytes for each chunk; `an object each` makes of them what the others give, a topic, a time and "
    "bytes for each message. rosbags reads in file order (`messages_scan`), as the others do, and in order of time "
    "(`messages`, what its Reader calls). Penstock and rosbags check the CRC of a chunk where there is one; mcap does "
    "not unless asked."
)
_DRIVE = "driving/derived_drive/drive_mcap/drive_mcap.mcap"

#: Messages and payload bytes.
Read = tuple[int, int]


def case(scratch: Path, *, quick: bool) -> Case:
    file = recorded_drive(scratch)
    turns = 1 if quick else 10
    readers: dict[str, tuple[Callable[[Path], Read], tuple[str, ...]]] = {
        "penstock": (penstock_blocks, ()),
        "penstock, an object each": (penstock_objects, ()),
        "rosbags, file order": (rosbags_scan, ("rosbags",)),
        "rosbags, time order": (rosbags_sorted, ("rosbags",)),
        "mcap": (mcap_objects, ("mcap",)),
    }
    expected = penstock_blocks(file)

    def times(reader: Callable[[Path], Read]) -> Callable[[], int]:
        def run() -> int:
            for _ in range(turns):
                if (found := reader(file)) != expected:
                    raise ValueError(f"read {found} messages and bytes, not {expected}")
            return turns * expected[0]

        return run

    contenders = [
        Contender(name, times(reader), ours=name.startswith("penstock"), needs=needs)
        for name, (reader, needs) in readers.items()
    ]
    return Case("bags", "MCAP messages, undecoded", "message", _RULES, contenders)


def recorded_drive(scratch: Path) -> Path:
    """The real drive, or a generated one."""
    found = real(_DRIVE)
    if found is not None:
        return found
    from penstock.demos.drive_recording import write_drive

    generated = scratch / "drive.mcap"
    write_drive(generated, seconds=10.0)
    return generated


def penstock_blocks(file: Path) -> Read:
    from penstock.sources.driving._mcap_contents import _catalog
    from penstock.sources.driving.mcap import Mcap

    _catalog.cache_clear()
    count = size = 0
    for block in Mcap(file).messages():
        if block.error:
            raise ValueError(block.error)
        count += len(block)
        size += int(block.length.sum())
    return count, size


def penstock_objects(file: Path) -> Read:
    from penstock.sources.driving._mcap_contents import _catalog
    from penstock.sources.driving.mcap import Mcap

    _catalog.cache_clear()
    count = size = 0
    for block in Mcap(file).messages():
        for channel, _, payload in block.each():
            count += channel is not None and bool(channel.topic)
            size += len(payload)
    return count, size


def mcap_objects(file: Path) -> Read:
    from mcap.reader import make_reader

    count = size = 0
    with file.open("rb") as stream:
        for _, channel, message in make_reader(stream).iter_messages(log_time_order=False):
            count += bool(channel.topic)
            size += len(message.data)
    return count, size


def rosbags_scan(file: Path) -> Read:
    return _rosbags(file, "messages_scan")


def rosbags_sorted(file: Path) -> Read:
    return _rosbags(file, "messages")


def _rosbags(file: Path, method: str) -> Read:
    from rosbags.rosbag2.storage_mcap import McapReader

    count = size = 0
    reader = McapReader(file)
    reader.open()
    for connection, _, payload in getattr(reader, method)(reader.connections):
        count += bool(connection.topic)
        size += len(payload)
    reader.close()
    return count, size
