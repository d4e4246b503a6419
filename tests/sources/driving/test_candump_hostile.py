"""Damaged logs of the text formats: no crash; every line is a row, a counted drop or a bad record; no byte is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.context import Context
from penstock.pipeline.errors import FormatError
from penstock.sources.driving._can_grammars import AscGrammar, CandumpGrammar, TrcGrammar
from penstock.sources.driving._can_lines import CanLogReader, Grammar
from penstock.sources.driving.asc import Asc
from penstock.sources.driving.candump import Candump
from penstock.sources.driving.trc import Trc
from penstock.sources.storage.unpack import BytesFeed
from source_reading import read_whole

CANDUMP = b"".join(
    (
        b"(1436509052.249713) vcan0 044#2A366C2B00000000\n",
        b"(1436509052.249813) can1 12345678##3112233445566778899AABB\n",
        b"(1436509052.249913) vcan0 123#R8\n\n",
        b"(1436509053.249914) vcan0 123#R T\r\n",
        b"(1436509053.250013)  can0  044   [8]  2A 36 6C 2B 00 00 00 00\n",
        b"(1436509053.250013)  can0  044  [03]  2A 36 6C   '*6l'\n",
    )
)
ASC = b"".join(
    (
        b"date Wed Apr 16 09:21:13.159 am 2014\nbase hex  timestamps relative\ninternal events logged\n",
        b"Begin Triggerblock Wed Apr 16 09:21:13.159 am 2014\n   0.000000 Start of measurement\n",
        b"   0.015991 1  123             Rx   d 8 01 02 03 04 05 06 07 08  Length = 237910\n",
        b"   0.018501 CANFD   1 Rx   18FF1234x  Name   1 0 9 12 01 02 03 04 05 06 07 08 09 0A 0B 0C  130000  130  303000\n",
        b"   31.5 2  7FFx Tx r\n   32.0 1 ErrorFrame\n   32.0 1 Statistic: D 0 R 0\nEnd TriggerBlock\n",
    )
)
TRC = b"".join(
    (
        b";$FILEVERSION=2.1\r\n;$STARTTIME=41766.4648963872\r\n;$COLUMNS=N,O,T,B,I,d,R,L,D\r\n;\r\n",
        b"      1      1059.900 DT 1      0300 Rx -  7    00 00 00 00 04 00 00 \r\n",
        b"      5      1334.416 FD 1      0500 Tx -  9    01 02 03 04 05 06 07 08 09 0A 0B 0C\r\n",
        b"      6      1334.222 ER 1         - Rx -  5    04 00 02 00 00\r\n      7      1334.224 EV -  hello\r\n",
        b"     12      1335.156 DT 1  18EFC034 Tx -  8    01 02 03 04 05 06 07 08\r\n 13  1336.543 RR 1  0100 Rx -  3\r\n",
    )
)
SEEDS = {"candump": CANDUMP, "asc": ASC, "trc": TRC}
INSERTS = (
    b"(",
    b")",
    b"#",
    b"##",
    b"[99]",
    b"\n",
    b"\0",
    b"\xff\xfe",
    b" " * 50,
    b"9" * 40,
    b"." * 3,
    b"x",
    b"R",
    b"A" * 300,
)


def reader_of(content: bytes, grammar: Grammar, fd: bool, size: int) -> CanLogReader:
    path = "x.log"
    schema = Candump(path, fd=fd)._schema(b"")
    return CanLogReader(
        BytesFeed(content), grammar, path=path, schema=schema, context=Context("fuzz"), position=None, block_bytes=size
    )


def grammar_of(name: str) -> Grammar:
    if name == "trc":
        return TrcGrammar(10**18, "NOTBIdRLD")
    return CandumpGrammar() if name == "candump" else AscGrammar(10**18, decimal=False, relative=True)


def account(content: bytes, name: str, *, fd: bool = True, size: int = 1 << 18) -> tuple[list[dict], list[tuple]]:
    """Rows and bad records; every line that is not blank is one of them or a drop, and every byte is in a block."""
    reader = reader_of(content, grammar_of(name), fd, size)
    rows: list[dict] = []
    bad: list[tuple] = []
    records = nbytes = dropped = 0
    for block in reader.blocks():
        found = reader.decode(block)
        for batch in found.batches:
            batch.validate(full=True)
            assert max(batch.column("len").to_pylist()) <= (64 if fd else 8)
            rows += batch.to_pylist()
        bad += [(record.seq, record.data) for record in found.bad]
        records, nbytes, dropped = records + block.records, nbytes + block.nbytes, dropped + sum(found.dropped.values())
        assert block.after["offset"] == nbytes
    assert nbytes == len(content)
    assert len(rows) + len(bad) + dropped == records
    lines = [line.strip(b" \t\r") for line in content.split(b"\n")]
    lines = [line for line in lines if line]
    assert records == len(lines)
    for seq, data in bad:
        assert lines[seq].startswith(data[:100].strip(b" \t\r"))
    return rows, bad


def mutations(cases: int, seed: bytes, start: int) -> Iterator[bytes]:
    random = Random(start)
    for _ in range(cases):
        content = bytearray(seed)
        for _ in range(random.randint(1, 5)):
            at = random.randrange(len(content) + 1)
            match random.randrange(4):
                case 0 if at < len(content):
                    content[at] ^= 1 << random.randrange(8)
                case 1:
                    content[at : at + random.randrange(30)] = b""
                case 2:
                    content[at:at] = random.choice(INSERTS)
                case _:
                    first = random.randrange(len(content) + 1)
                    content[at:at] = content[first : first + random.randrange(60)]
            content = content or bytearray(b"(")
        yield bytes(content)


def fuzz(cases: int) -> None:
    for start, (name, seed) in enumerate(SEEDS.items(), 1):
        for i, content in enumerate(mutations(cases, seed, start)):
            account(content, name, fd=i % 2 == 0)


def test_mutated_logs_are_accounted_for_line_by_line() -> None:
    fuzz(300)


@pytest.mark.nightly
def test_mutated_logs_are_accounted_for_nightly() -> None:
    fuzz(10_000)


@settings(max_examples=200)
@given(content=st.binary(max_size=300) | st.text("()#.0123456789ABCDRTx []\n\t\r", max_size=300).map(str.encode))
def test_any_bytes_are_accounted_for(content: bytes) -> None:
    for name in SEEDS:
        account(content, name)


@settings(max_examples=60)
@given(data=st.data())
def test_rows_do_not_depend_on_the_size_of_blocks(data: st.DataObject) -> None:
    name, seed = data.draw(st.sampled_from(sorted(SEEDS.items())))
    content = seed * 20
    whole = account(content, name)
    assert whole[0]
    assert account(content, name, size=data.draw(st.integers(200, 2000))) == whole


def test_a_line_longer_than_any_buffer_is_one_bad_record() -> None:
    for tail in (b"\n" + CANDUMP, b""):
        content = CANDUMP + b"x" * 5000 + tail
        rows, bad = account(content, "candump", size=512)
        assert len(bad) == 1
        assert bad[0][1] == b"x" * 512
        assert len(rows) == (12 if tail else 6)


def test_an_interface_name_in_a_damaged_line_is_seen_by_all_later_blocks() -> None:
    lines = [f"({i}.0) can{i % 5} 123#zz" for i in range(100)] + [f"({i}.0) can{i % 7} 123#" for i in range(100)]
    rows, _ = account("\n".join(lines).encode(), "candump", size=300)
    assert [row["bus"] for row in rows] == [i % 7 for i in range(100)]


def test_cut_anywhere_a_log_keeps_what_stands_before(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for spec, content in ((Candump(path, fd=True), CANDUMP), (Asc(path, fd=True), ASC), (Trc(path, fd=True), TRC)):
        path.write_bytes(content)
        whole = read_whole(spec).rows
        for end in range(0, len(content), 5):
            path.write_bytes(content[:end])
            try:
                rows = read_whole(spec).rows
            except FormatError as error:
                assert str(path) in str(error)
                continue
            done = content[:end].count(b"\n")
            kept = [
                row
                for row in whole
                if row["seq"] < np.count_nonzero([bool(x.strip()) for x in content.split(b"\n")[:done]])
            ]
            if spec.format == "candump" or end > 80:  # a cut date is another date
                assert rows[: len(kept)] == kept
            assert len(rows) <= len(kept) + 1
