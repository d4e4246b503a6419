"""Damaged radar recordings: every packet is a row, put aside or counted, and nothing is read past its end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.errors import FormatError
from penstock.sources.driving._radar_packets import nebula_packets
from penstock.sources.driving.ars548 import Ars548
from penstock.sources.driving.srr520 import Srr520
from radar_files import (
    HRR,
    NEAR,
    OBJECTS,
    detection_packet,
    frames,
    message,
    object_header,
    read_radar,
    scan_header,
    write_bag,
    write_capture,
)

ARS = ("scan", "detections", "objects", "status")
SRR = ("scan", "detections", "objects")


def object_packet(count: int) -> bytes:
    return (
        b"\0\0\x01\x49"
        + (9393).to_bytes(4, "big")
        + bytes(36 + 6)
        + bytes([count])
        + bytes(range(250)) * 37
        + bytes(100)
    )


def originals() -> list[list[bytes]]:
    """Messages of an ARS548, and of an SRR520."""
    points = [(0.1 * i, 0.01, 3.0 * i, -1.0, i, 0, i) for i in range(9)]
    status = b"\0\0\x01\x7c" + (76).to_bytes(4, "big") + bytes(76)
    ars = [message([detection_packet(points), object_packet(3)[:9401], status]), message([detection_packet([])])]
    lists = [(NEAR, scan_header(30)), (HRR, scan_header(12)), (OBJECTS, object_header(9))]
    return [ars, [message(frames(kind, header, [bytes(range(6))] * 9)) for kind, header in lists]]


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    out = bytearray(data)
    kind, at = int(rng.integers(5)), int(rng.integers(len(out)))
    at = at if rng.integers(2) else at % 80  # half of the damage to what says how long things are
    if kind == 0:
        for _ in range(int(rng.integers(1, 9))):
            out[(at + int(rng.integers(64))) % len(out)] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del out[at:]
    elif kind == 2:
        start = int(rng.integers(len(data)))
        out[at:at] = data[start : start + int(rng.integers(1, 300))]
    elif kind == 3:
        out[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", b"\0\0\1\0"])
    else:
        del out[at : at + int(rng.integers(1, 90))]
    return bytes(out)


def check(path: Path, case: int) -> None:
    for table in (ARS[case % 4],):
        got = read_radar(Ars548(path, table))
        assert len(got.rows) + len(got.bad) + sum(got.dropped.values()) == got.records
        seqs = [row["seq"] for row in got.rows] + [record.seq for record in got.bad]
        assert len(set(seqs)) == len(seqs)
        assert all(seq is not None and seq < got.records for seq in seqs)
    for table in (SRR[case % 3],):
        got = read_radar(Srr520(path, table))
        assert len(got.rows) + len(got.bad) + sum(got.dropped.values()) <= got.records
        assert got.records == 0 or got.rows or got.bad or got.dropped


def fuzz(folder: Path, cases: int, seed: int) -> None:
    rng = np.random.Generator(np.random.Philox(key=seed))
    kinds = originals()
    for case in range(cases):
        messages = list(kinds[case % 2])
        victim = int(rng.integers(len(messages)))
        messages[victim] = mutated(messages[victim], rng)
        try:
            check(write_bag(folder / "case.db3", messages), case)
        except BaseException as error:
            error.add_note(f"case {case} of seed {seed}")
            raise


def test_damaged_messages_are_accounted_for(tmp_path: Path) -> None:
    fuzz(tmp_path, 300, 1)


@pytest.mark.nightly
def test_many_damaged_messages_are_accounted_for(tmp_path: Path) -> None:
    fuzz(tmp_path, 10_000, 2)


@pytest.mark.parametrize("cases", [40, pytest.param(2_000, marks=pytest.mark.nightly)])
def test_damaged_bags_and_captures_are_refused_or_read(tmp_path: Path, cases: int) -> None:
    rng = np.random.Generator(np.random.Philox(key=3))
    bag = write_bag(tmp_path / "good.db3", originals()[0]).read_bytes()
    capture = write_capture(tmp_path / "good.pcap", [detection_packet([]), object_packet(2)[:9401]], 42102).read_bytes()
    for case in range(cases):
        path = tmp_path / "case"
        path.write_bytes(mutated(bag if case % 2 else capture, rng))
        try:
            got = read_radar(Ars548(path))
        except FormatError:
            continue
        assert len(got.rows) + len(got.bad) <= max(got.records, len(got.rows) + len(got.bad))


@settings(max_examples=300)
@given(data=st.binary(max_size=80))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    for head in (b"", b"\0\1\0\0", b"\0\0\0\0", message([b"abc", b""])[:-3]):
        try:
            _, packets = nebula_packets(head + data)
        except ValueError:
            continue
        assert sum(len(p.data) for p in packets) <= len(head + data)
