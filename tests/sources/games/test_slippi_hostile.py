"""Slippi replays that are damaged on purpose: no crash, nothing read past the end, every byte accounted for."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.clock import SyntheticClock
from penstock.pipeline.context import Context
from penstock.pipeline.errors import FormatError
from penstock.sources.games._slippi_format import detect, parse_container, parse_metadata, parse_opening
from penstock.sources.games._slippi_frames import FrameResolver, Resolved
from penstock.sources.games._slippi_reader import SlippiReader, examine
from penstock.sources.games.slippi import Slippi, SlippiTail, inspect_slippi
from slippi_naive import Game, write_container


def sound(seed):
    """A replay of about 20 frames with rollbacks."""
    made = Game([(1, 0), (2, 0), (3, 0), (3, 9)][seed % 4])
    frames = [f for last in range(-123, -105) for f in ([last - 1, last] if last % 5 == 0 else [last])]
    body = b"".join(made.frame(f, turn=i, follower=i % 3 == 0, final=max(-124, f - 2)) for i, f in enumerate(frames))
    return write_container(made.head + body + made.end())


def damage(data, rng):
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not data:
            break
        at = rng.randrange(len(data))
        kind = rng.randrange(6)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            other = rng.randrange(len(data))
            data[at:at] = data[other : other + rng.randrange(200)]
        elif kind == 3:
            del data[at : at + rng.randrange(1, 100)]
        elif kind == 4:
            place = rng.choice([11, 12, 13, 14, 16, *range(17, 40)])
            if place < len(data):
                data[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
        else:
            data[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\x80\0\0\0"])
    return bytes(data)


def check(path, data, table):
    """Read `path` whole; every byte of the events is passed, skipped or bad, and numbers have no gap."""
    path.write_bytes(data)
    detect(data[:65536])
    try:
        replay = examine(path)
    except FormatError:
        return 0
    inspect_slippi(path)
    context = Context("fuzz")
    reader = SlippiReader(replay, table, "m", 0, "f", context, None)
    sizes = replay.opening.sizes.astype(np.int64) + 1
    passed = lost = 0
    numbers, rows = [], 0
    for block in reader.blocks():
        decoded = reader.decode(block)
        for batch in decoded.batches:
            batch.validate(full=True)
            numbers += batch["seq"].to_pylist()
            rows += batch.num_rows
        numbers += [record.seq for record in decoded.bad if record.seq is not None]
        if isinstance(block.payload, Resolved):
            passed += int((block.payload.counts * sizes).sum())
            lost += sum(len(e.data) for e in block.payload.bad if e.error.startswith(("no event", "the replay ends")))
            assert block.records == len(block.payload.rows) + len(block.payload.bad)
    reader.close()
    container = replay.container
    end = len(data) if container.length is None else min(len(data), container.start + container.length)
    assert replay.opening.end + passed + lost == end
    assert sorted(numbers) == list(range(len(numbers)))
    return rows


def cases(tmp_path, count, first=0):
    read = 0
    for seed in range(first, first + count):
        rng = random.Random(seed)
        read += check(tmp_path / "f.slp", damage(sound(seed), rng), ("input", "state")[seed % 2]) > 0
    return read


def test_damaged_replays_lose_no_byte(tmp_path):
    assert cases(tmp_path, 300) > 200


@pytest.mark.nightly
def test_damaged_replays_lose_no_byte_at_length(tmp_path):
    cases(tmp_path, 10_000, 1000)


def test_damaged_growing_replays_end(tmp_path):
    path = tmp_path / "f.slp"
    for seed in range(60):
        path.write_bytes(damage(sound(seed), random.Random(seed)))
        context = Context("fuzz", clock=SyntheticClock())
        try:
            reader = SlippiTail(path, patience="1s").open(context)
            rows = sum(batch.num_rows for block in reader.blocks() for batch in reader.decode(block).batches)
            reader.close()
        except FormatError:
            continue
        assert rows <= 200


def test_one_flipped_bit_costs_few_rows(tmp_path):
    data = sound(3)
    begin = examine_opening(data)
    path = tmp_path / "f.slp"
    whole = check(path, data, "input")
    for seed in range(100):
        rng = random.Random(seed)
        hurt = bytearray(data)
        hurt[rng.randrange(begin, data.index(b"U\x08metadata") - 3)] ^= 1 << rng.randrange(8)
        path.write_bytes(hurt)
        reader = Slippi(path).open(Context("fuzz"))
        rows = sum(batch.num_rows for block in reader.blocks() for batch in reader.decode(block).batches)
        reader.close()
        assert rows >= whole * 0.4


def examine_opening(data):
    return parse_opening(data, parse_container(data, ""), "").end + 1 + 0x1A2


@given(st.binary(max_size=400))
@settings(max_examples=100)
def test_any_bytes_as_metadata(data):
    found, used, _ = parse_metadata(b"U\x08metadata" + data)
    assert 0 <= used <= len(data) + 10
    assert found is None or isinstance(found, dict)


@given(st.binary(max_size=300), st.integers(0, 5))
@settings(max_examples=100)
def test_any_bytes_as_events(data, size):
    sizes = np.full(256, -1, np.int32)
    sizes[[0x36, 0x37, 0x38, 0x39, 0x3A, 0x3C]] = 0, 7 + size, size, 1, size, 8
    resolver = FrameResolver(sizes)
    passed = 0
    for part in resolver.feed(data, final=True):
        passed += int((part.counts * (sizes + 1)).sum())
        passed += sum(len(e.data) for e in part.bad if e.error.startswith(("no event", "the replay ends")))
    assert passed == len(data)
