"""Bags: every message of an MCAP recording as it was recorded, undecoded."""

from __future__ import annotations

from pathlib import Path

from .harness import Case, Contender
from .recordings import real

__all__ = ["case", "recorded_drive"]

_RULES = (
    "A ROS 2 drive (camera, radar, CAN, IMU; zstd chunks) in the page cache, opened anew each time and read in file order: "
    "log time, topic and payload of every message, none decoded, one thread. Penstock gives arrays of times, channels and "
    "places for each chunk, the others a Python object for each message."
)
_DRIVE = "driving/derived_drive/drive_mcap/drive_mcap.mcap"


def case(scratch: Path, *, quick: bool) -> Case:
    file = recorded_drive(scratch)
    turns = 1 if quick else 10
    contenders = [
        Contender("penstock", lambda: penstock_raw(file, turns), ours=True),
        Contender("rosbags", lambda: rosbags_raw(file, turns), needs=("rosbags",)),
        Contender("mcap", lambda: mcap_raw(file, turns), needs=("mcap",)),
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


def penstock_raw(file: Path, turns: int) -> int:
    from penstock.sources.driving._mcap_contents import _catalog
    from penstock.sources.driving.mcap import Mcap

    count = 0
    for _ in range(turns):
        _catalog.cache_clear()
        for block in Mcap(file).messages():
            if block.error:
                raise ValueError(block.error)
            count += len(block)
    return count


def mcap_raw(file: Path, turns: int) -> int:
    from mcap.reader import make_reader

    count = 0
    for _ in range(turns):
        with file.open("rb") as stream:
            for _, channel, message in make_reader(stream).iter_messages(log_time_order=False):
                count += bool(channel.topic and message.data)
    return count


def rosbags_raw(file: Path, turns: int) -> int:
    from rosbags.rosbag2.storage_mcap import McapReader

    count = 0
    for _ in range(turns):
        reader = McapReader(file)
        reader.open()
        for connection, _, payload in reader.messages(reader.connections):
            count += bool(connection.topic and payload)
        reader.close()
    return count
