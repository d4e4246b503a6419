"""Inputs: real recordings repeated to a useful length, or generated ones where there are none.

Repeats of a drive are moved on in time (log time and header stamps); those of a market day get order references of their
own and close their orders, so that books see new days; those of a game are the same lines. Nothing measured here goes by
event time.
"""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

__all__ = ["CAMERA", "drive", "game", "game_lines", "market", "real"]

CAMERA = "/camera/front/image_raw/compressed"

_DRIVE = "driving/derived_drive/drive_mcap/drive_mcap.mcap"
_MARKET = "market/itch50/ex20101224.TEST_ITCH_50.prefixed.itch"
_GAME = "games/derived_sc2_events"


def real(relative: str) -> Path | None:
    """A real recording, or None if there is none here."""
    configured = os.environ.get("PENSTOCK_DATA")
    root = Path(configured) if configured else Path(__file__).resolve().parents[2] / "shared" / "data"
    path = root / relative
    return path if path.exists() else None


def drive(scratch: Path, frames: int) -> tuple[Path, str, int]:
    """An MCAP file with at least `frames` camera frames and nothing else: (path, topic, frames)."""
    found = real(_DRIVE)
    if found is None:
        from penstock.demos.drive_recording import write_drive

        generated = scratch / "drive.mcap"
        write_drive(generated, seconds=max(1.0, frames / 25))
        found = generated
    return _camera_only(found, scratch / "camera.mcap", frames)


def _camera_only(source: Path, target: Path, frames: int) -> tuple[Path, str, int]:
    from mcap.reader import make_reader
    from mcap.writer import CompressionType, Writer

    with source.open("rb") as stream:
        reader = make_reader(stream)
        recorded = [
            (schema, channel, message)
            for schema, channel, message in reader.iter_messages()
            if schema is not None and schema.name.endswith("CompressedImage")
        ]
    if not recorded:
        raise ValueError(f"{source.name} holds no sensor_msgs/CompressedImage")
    schema, channel, first = recorded[0]
    recorded = [entry for entry in recorded if entry[1].topic == channel.topic]
    span = (recorded[-1][2].log_time - first.log_time) // 10**9 + 1
    count = 0
    with target.open("wb") as stream:
        writer = Writer(stream, compression=CompressionType.NONE)
        writer.start(profile="ros2", library="penstock bench")
        schema_id = writer.register_schema(schema.name, schema.encoding, schema.data)
        channel_id = writer.register_channel(channel.topic, channel.message_encoding, schema_id, dict(channel.metadata))
        turn = 0
        while count < frames:
            for _, _, message in recorded:
                (seconds,) = struct.unpack_from("<i", message.data, 4)
                data = message.data[:4] + struct.pack("<i", seconds + turn * span) + message.data[8:]
                moved = message.log_time + turn * span * 10**9
                writer.add_message(channel_id, moved, data, moved, sequence=count)
                count += 1
            turn += 1
        writer.finish()
    return target, channel.topic, count


def market(scratch: Path, messages: int, name: str) -> tuple[Path, int]:
    """A length-prefixed ITCH 5.0 file with about `messages` messages: (path, messages)."""
    found = real(_MARKET)
    target = scratch / f"01302019.{name}.NASDAQ_ITCH50"
    if found is None:
        from penstock.demos.market_recording import write_market

        return target, int(write_market(target, messages=messages)["messages"])
    day = found.read_bytes()
    kept = [m for m in _messages(day) if not (m[2:3] == b"S" and m[-1:] == b"C")]  # at which parsers stop
    kept += _deletes(kept)
    references, size = [], 0
    for message in kept:
        fields = {"U": (13, 21), **dict.fromkeys("AFECXDP", (13,))}.get(chr(message[2]), ())
        references += [size + place for place in fields]
        size += len(message)
    count, turns = len(kept), max(1, round(messages / len(kept)))
    once = np.frombuffer(bytearray(b"".join(kept)), np.uint8)
    places = np.array(references)[:, None] + np.arange(8)
    numbers = once[places].view(">u8")
    stride = int(numbers.max()) + 1
    with target.open("wb") as stream:
        for turn in range(turns):
            once[places] = (numbers + np.uint64(turn * stride)).astype(">u8").view(np.uint8)
            stream.write(once.tobytes())
    return target, turns * count


def _messages(day: bytes) -> Iterator[bytes]:
    """Messages with their length prefixes, up to a zero length or the end."""
    at = 0
    while at + 2 <= len(day) and (length := int.from_bytes(day[at : at + 2], "big")):
        yield day[at : at + 2 + length]
        at += 2 + length


def _deletes(messages: list[bytes]) -> list[bytes]:
    """Delete messages for the orders that a day leaves open, so that repeats do not pile up in a book."""
    live: dict[bytes, tuple[bytes, int]] = {}
    for m in messages:
        kind, head, reference = m[2:3], m[3:13], m[13:21]
        if kind in b"AF":
            live[reference] = (head, int.from_bytes(m[22:26], "big"))
        elif kind in b"ECX" and reference in live:
            left = live[reference][1] - int.from_bytes(m[21:25], "big")
            live[reference] = (live[reference][0], left)
            if left <= 0:
                del live[reference]
        elif kind == b"D":
            live.pop(reference, None)
        elif kind == b"U" and (old := live.pop(reference, None)):
            live[m[21:29]] = (old[0], int.from_bytes(m[29:33], "big"))
    stamp = messages[-1][7:13]
    return [b"\x00\x13D" + head[:4] + stamp + reference for reference, (head, _) in live.items()]


def game_lines(scratch: Path) -> bytes:
    """One game's events as NDJSON."""
    folder = real(_GAME)
    if folder is not None:
        return b"".join(gzip.decompress(path.read_bytes()) for path in sorted(folder.glob("*.ndjson.gz")))
    from penstock.demos.game_recording import write_game

    path = scratch / "game.ndjson"
    write_game(path)
    data = path.read_bytes()
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def game(scratch: Path, events: int) -> tuple[Path, int]:
    """An NDJSON file of at least `events` events: (path, events)."""
    lines = game_lines(scratch)
    count = lines.count(b"\n")
    turns = max(1, -(-events // count))
    target = scratch / "events.ndjson"
    with target.open("wb") as stream:
        for _ in range(turns):
            stream.write(lines)
    return target, turns * count
