"""Damaged BLF logs: no crash, every byte of the file and of what it holds is framed, skipped by rule or put aside."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import blf_files as blf
import pytest
from blf_files import container, file_head, thing
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.context import Context
from penstock.pipeline.memory import BufferPool
from penstock.sources.driving._blf_containers import KEPT, Content, Damage, read_containers
from penstock.sources.driving._blf_format import MOST_CONTAINER
from penstock.sources.driving._blf_reader import BlfReader
from penstock.sources.driving.blf import Blf, is_blf
from penstock.sources.storage.unpack import BytesFeed
from source_reading import read_whole

HEAD = file_head()
OBJECTS = b"".join(
    (
        thing(1, blf.can_message(1, 0x123, b"\1\2\3\4"), 1000),
        thing(86, blf.can_message(2, 0x80000123, b"LOBJ") + bytes(8), 2000),
        thing(65, b"some text") + b"\0",
        thing(100, blf.fd_message(3, 7, bytes(range(64))), 7, flags=1),
        thing(101, blf.fd_64(4, 7, b"abcdefg"), version=2),
        thing(101, blf.fd_64(4, 7, b"abcd", valid=20)) + bytes(2),
        thing(73, blf.error_ext(5, 7, b"abc"), 3000),
        thing(2, blf.error(6)),
        thing(115, b"x" * 33),
    )
)
PIECES = (OBJECTS[:100], OBJECTS[100:333], OBJECTS[333:] + OBJECTS)
FILES = (
    b"".join(container(piece) for piece in PIECES),
    b"".join(container(piece, packed=False) for piece in PIECES),
    container(OBJECTS) + thing(1, blf.can_message(1, 5, b"a")) + thing(72, b"loose") + container(OBJECTS, packed=False),
)
PLACE = re.compile(r"x, byte (\d+)(?:, (\d+) bytes into its content)?")
INSERTS = (b"LOBJ", b"\0" * 9, b"\xff" * 40, thing(1, blf.can_message(1, 5, b"a")), container(b"abc"), b"LOGG", b"L")


def reader_of(
    content: bytes, *, size: int = 1 << 20, position: Any = None, pool: BufferPool | None = None
) -> BlfReader:
    return BlfReader(
        BytesFeed(content),
        origin=10**18,
        start=0,
        path="x",
        schema=Blf("x", fd=True)._schema(b"", file_start()),
        context=Context("fuzz", pool=pool),
        position=position,
        block_bytes=size,
    )


def file_start() -> Any:
    from penstock.sources.driving._blf_format import read_head

    return read_head(HEAD)


def outline(content: bytes) -> dict[int, bytes]:
    """What the containers hold, by place; every byte of the file is in one, between two as padding, or put aside."""
    held: dict[int, bytes] = {}
    at = 0
    events = list(read_containers(BytesFeed(content), "x", 0))
    for number, event in enumerate(events):
        if isinstance(event, Damage):
            found = PLACE.fullmatch(event.bad.place)
            assert found is not None
            start = int(found[1])
            assert start <= event.after <= len(content) and start - at <= 4
            assert event.bad.data == content[start : min(event.after, start + KEPT)]
            at = event.after
            continue
        assert 0 <= event.offset - at <= 4 and event.offset not in held
        held[event.offset] = event.data
        following = events[number + 1] if number + 1 < len(events) else None
        if isinstance(following, Damage) and following.bad.place == f"x, byte {event.offset}":
            at = event.offset  # the end of the container is missing: what there is was put aside as well
            continue
        at = event.offset + span_of(content, event)
        if len(content) - at <= 4 and following is None:
            at = len(content)
    assert len(content) - at <= 4
    return held


def span_of(content: bytes, event: Content) -> int:
    """Bytes of the file that `event` stands for."""
    _, _, _, size, kind = struct.unpack_from("<4sHHII", content, event.offset)
    if kind != 10:
        assert content[event.offset :].startswith(event.data)
        return len(event.data)
    if content[event.offset + 16] == 0:
        assert content[event.offset + 32 :].startswith(event.data)
        return 32 + len(event.data)
    member = zlib.decompressobj()
    assert member.decompress(content[event.offset + 32 : event.offset + size]) == event.data and member.eof
    used = min(size, len(content) - event.offset) - len(member.unused_data)
    return used if size - used > 4 else min(size, len(content) - event.offset)


def account(content: bytes, *, size: int = 1 << 20, pool: BufferPool | None = None) -> tuple[Any, ...]:
    """Rows and bad records of a file without its head, and the position behind each block."""
    held = outline(content)
    reader = reader_of(content, size=size, pool=pool)
    rows, bad, after = [], [], []
    records = nbytes = dropped = 0
    for block in reader.blocks():
        found = reader.decode(block)
        assert block.first_seq == records
        for batch in found.batches:
            batch.validate(full=True)
            assert max(batch.column("len").to_pylist()) <= 64
            rows += batch.to_pylist()
        bad += [(record.seq, record.place, record.error, record.data) for record in found.bad]
        records, nbytes, dropped = records + block.records, nbytes + block.nbytes, dropped + sum(found.dropped.values())
        after.append(block.after)
    assert nbytes == sum(map(len, held.values()))
    numbered = [record for record in bad if record[0] is not None]
    assert len(rows) + len(numbered) + dropped == records
    assert len({record[0] for record in numbered} | {row["seq"] for row in rows}) == len(rows) + len(numbered)
    for _, place, _, data in numbered:
        found_at = PLACE.fullmatch(place)
        assert found_at is not None and found_at[2] is not None
        stream = b"".join(held[start] for start in sorted(held) if start >= int(found_at[1]))
        assert stream[int(found_at[2]) :].startswith(data)
    return rows, bad, after


def resume(content: bytes, position: Any, size: int) -> tuple[Any, ...]:
    reader = reader_of(content, size=size, position=position)
    rows, bad = [], []
    for block in reader.blocks():
        found = reader.decode(block)
        rows += [row for batch in found.batches for row in batch.to_pylist()]
        bad += [(record.seq, record.place, record.error, record.data) for record in found.bad]
    return rows, bad


def mutated(random: Random, content: bytearray) -> bytes:
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(content) + 1)
        match random.randrange(5):
            case 0 if at < len(content):
                content[at] ^= 1 << random.randrange(8)
            case 1:
                content[at : at + random.randrange(60)] = b""
            case 2:
                content[at:at] = random.choice(INSERTS)
            case 3:
                first = random.randrange(len(content) + 1)
                content[at:at] = content[first : first + random.randrange(200)]
            case _:
                heads = [found.start() for found in re.finditer(b"LOBJ", content) if found.start() + 32 < len(content)]
                if heads:  # a lie about a length, or about what is unpacked
                    field = random.choice(heads) + random.choice((4, 8, 8, 8, 24))
                    number = random.choice(
                        (0, 1, 15, 16, 31, 33, 200, 1000, 1 << 20, 3 << 20, 60 << 20, 1 << 31, 2**32 - 1)
                    )
                    content[field : field + 4] = number.to_bytes(4, "little")
    return bytes(content)


def mutations(cases: int) -> Iterator[bytes]:
    random = Random(7)
    for case in range(cases):
        if case % 2:
            yield mutated(random, bytearray(FILES[case // 2 % 3]))
            continue
        stream = mutated(random, bytearray(OBJECTS * 2))
        cut = random.randrange(len(stream) + 1)
        yield container(stream[:cut], packed=case % 4 == 0) + container(stream[cut:])


def fuzz(cases: int) -> None:
    random, pool = Random(8), BufferPool()
    for content in mutations(cases):
        rows, bad, _ = account(content, pool=pool)
        size = random.randrange(64, 400)
        again, same, after = account(content, size=size, pool=pool)
        assert (again, same) == (rows, bad)
        if after:
            position = random.choice(after)
            more, rest = resume(content, position, random.randrange(64, 400))
            assert more == [row for row in rows if row["seq"] >= position["seq"]]
            assert [each for each in rest if each[0] is not None] == [
                each for each in bad if each[0] is not None and each[0] >= position["seq"]
            ]
    assert pool.peak_bytes < 16 << 20


def test_mutated_logs_are_accounted_for_byte_by_byte() -> None:
    fuzz(300)


@pytest.mark.nightly
def test_mutated_logs_are_accounted_for_nightly() -> None:
    fuzz(10_000)


@settings(max_examples=100)
@given(content=st.lists(st.binary(max_size=60) | st.sampled_from([b"LOBJ", OBJECTS, FILES[0], *INSERTS])).map(b"".join))
def test_any_bytes_are_accounted_for(content: bytes) -> None:
    account(content)
    account(container(content), size=100)


def test_a_sound_log_has_nothing_bad() -> None:
    for content in FILES:
        rows, bad, _ = account(content)
        assert not bad and len(rows) >= 14


def test_a_lie_about_a_length_costs_that_object_only() -> None:
    sound = thing(1, blf.can_message(1, 5, b"a"))
    for size in (0, 15, 17, 31, 49, 96, 97, 144, 240, 1 << 20, 3 << 20, 2**32 - 1):
        liar = thing(1, blf.can_message(1, 6, b"b"), size=size)
        rows, bad, _ = account(container(sound + liar + sound * 5))
        assert [row["can_id"] for row in rows] == [5] * 6, size
        assert [each[3] for each in bad] == [liar], size


def test_a_container_that_does_not_unpack_costs_what_it_holds_and_what_it_cuts() -> None:
    pieces = [container(piece) for piece in (OBJECTS * 3, OBJECTS[:80], OBJECTS[80:], OBJECTS)]
    broken = bytearray(pieces[1])
    broken[40] ^= 255
    rows, bad, _ = account(pieces[0] + bytes(broken) + pieces[2] + pieces[3])
    whole = account(pieces[0] + pieces[3])[0]
    assert len(rows) >= len(whole) + 5
    assert [each[2].split(" (")[0] for each in bad[:1]] == ["a container does not unpack"]
    assert bad[0][3] == bytes(broken)
    assert bad[1][2].startswith("no object begins here")


def test_a_stray_length_of_a_container_swallows_no_other() -> None:
    one = container(OBJECTS)
    for size in (200, 4000, 1 << 20, 60 << 20, 2**32 - 1, 0, 40):
        liar = one[:8] + size.to_bytes(4, "little") + one[12:]
        rows, bad, _ = account(liar + one * 3)
        assert len(rows) >= 3 * 7, size
        assert bad or len(rows) == 4 * 7, size


def test_what_unpacks_to_more_than_any_container_is_put_aside() -> None:
    bomb = container(zlib.compress(bytes(MOST_CONTAINER + 1), 9), packed=False, method=2)
    rows, bad, _ = account(bomb + container(OBJECTS))
    assert len(rows) == 7
    assert "more than 64 MiB" in bad[0][2]


def test_an_object_larger_than_any_buffer_is_framed_or_put_aside_in_one() -> None:
    sound = thing(1, blf.can_message(1, 5, b"a"))
    rows, bad, _ = account(container(sound + thing(65, b"t" * 300_000) + sound), size=512)
    assert (len(rows), bad) == (2, [])
    rows, bad, _ = account(container(sound + thing(65, b"t" * 300_000, size=20 << 20) + sound), size=512)
    assert len(rows) == 2
    assert [(len(each[3]), each[2].split(";")[0]) for each in bad] == [(KEPT, "no object begins here")]


def test_cut_anywhere_a_log_keeps_what_stands_before() -> None:
    for content in FILES:
        whole = account(content)[0]
        for end in range(0, len(content), 7):
            rows = account(content[:end])[0]
            assert rows == whole[: len(rows)]


def test_a_cut_container_gives_what_can_be_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "x.blf"
    stream = b"".join(thing(1, blf.can_message(1, i, i.to_bytes(2, "big")), i * i) for i in range(2000))
    content = HEAD + container(stream)
    path.write_bytes(content[: len(content) // 2])
    whole = read_whole(Blf(path))
    assert 500 < len(whole.rows) < 1500
    assert [record.operation for record in whole.bad] == ["blf.frame", "blf.frame"]
    assert "the file ends inside a container" in whole.bad[1].error
    assert is_blf(content)
