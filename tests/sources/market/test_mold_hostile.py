"""Damaged captures of MoldUDP64 and IEX-TP: no crash, and every message is a row, bad, dropped or told as missing."""

from __future__ import annotations

import struct
from pathlib import Path
from random import Random
from typing import Any

import packets as pk
import pytest
from itch_reference import directory, message
from packets import Reading, ethernet, ipv4, mutated, read, udp
from penstock.pipeline.errors import FormatError
from penstock.sources.market.iex import Iex
from penstock.sources.market.mold import MoldItch
from penstock.sources.network.pcap import read_header

T0 = 1_548_858_600 * 10**9
LOST = "lost before the capture: messages missing"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile") / "2019-01-30.pcap"


def itch(count: int = 24) -> list[bytes]:
    made = [directory(1, "ABC")]
    made += [message("A", 1, i, i, b"B", 100, b"ABC     ", 10_000 + i) for i in range(count - 1)]
    return [pk.mold(1 + at, made[at : at + 3]) for at in range(0, count, 3)]


def iex(count: int = 24) -> list[bytes]:
    made = []
    for i in range(count):
        head = (b"Q" if i % 3 else b"O") + b"N" + struct.pack("<q", T0 + i) + f"S{i % 5}".ljust(8).encode()
        made.append(head + (struct.pack("<IqqI", i, i, i + 1, i) if i % 3 else b""))
    return [pk.iex(1 + at, made[at : at + 3]) for at in range(0, count, 3)]


def capture(payloads: list[bytes], ng: bool) -> bytes:
    captured = []
    for i, payload in enumerate(payloads):
        for line in (0, 1):
            captured.append((T0 + 2000 * i + line, ethernet(ipv4(udp(payload, target=26477 + line)))))
    return pk.pcapng(captured) if ng else pk.pcap(captured)


def accounted(found: Reading) -> bool:
    """Whether each message up to the last is a row, a bad record, dropped for its type or told as missing."""
    bad = [record for record in found.bad if record.seq is not None and not record.operation.endswith("sequence")]
    others = sum(count for why, count in found.dropped.items() if why.startswith("not in market"))
    return found.table.num_rows + len(bad) + others + found.dropped.get(LOST, 0) == found.records


def fuzz(path: Path, seeds: range) -> None:
    for seed in seeds:
        random = Random(seed)
        is_iex = bool(seed & 1)
        data = mutated(capture(iex() if is_iex else itch(), bool(seed & 2)), random)
        path.write_bytes(data)
        ports = (26477, 26478) if seed & 4 else ()
        options: dict[str, Any] = {"ports": ports, "reorder": random.choice([1, 4, 4096])}
        spec = Iex(path, table=random.choice(["bbo", "status"]), **options) if is_iex else MoldItch(path, **options)
        try:
            read_header(data[: 1 << 16], "some file")
        except FormatError:
            with pytest.raises(FormatError):
                read(spec)
            continue
        assert accounted(read(spec)), seed


def test_damaged_captures(path: Path) -> None:
    fuzz(path, range(300))


@pytest.mark.nightly
def test_many_damaged_captures(path: Path) -> None:
    fuzz(path, range(300, 10_300))


@pytest.mark.parametrize("number", [1 << 40, (1 << 62) - 1, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_a_packet_with_an_absurd_number_costs_itself(path: Path, number: int) -> None:
    payloads = itch()
    wrong = bytearray(payloads[3])
    wrong[10:18] = number.to_bytes(8, "big")
    path.write_bytes(capture([*payloads[:4], bytes(wrong), *payloads[4:]], False))
    found = read(MoldItch(path, reorder=4))
    assert found.rows("seq") == list(range(1, 24))
    assert [record.operation for record in found.bad] == ["mold.sequence"] * 2
    assert (found.records, LOST in found.dropped) == (24, False)


def test_a_count_beyond_the_packet_is_no_packet_of_the_feed(path: Path) -> None:
    payloads = itch()
    wrong = bytearray(payloads[3])
    wrong[18:20] = (0xFFFE).to_bytes(2, "big")
    path.write_bytes(capture([*payloads[:3], bytes(wrong), *payloads[4:]], False))
    assert read(MoldItch(path, reorder=4)).dropped[LOST] == 3
    assert len(read(MoldItch(path, reorder=4, ports=(26477, 26478))).bad) == 3


def test_sessions_beyond_those_followed_are_bad(path: Path) -> None:
    payloads = [pk.mold(1, [message("D", 1, 1, 1)], session=b"%010d" % i) for i in range(300)]
    path.write_bytes(capture(payloads, False))
    found = read(MoldItch(path))
    assert found.table.num_rows == 256
    assert len(found.bad) == 2 * 44
    assert "more sessions than are followed" in found.bad[0].error
