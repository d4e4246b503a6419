"""Content of files, packed in any way and read in any steps, against the bytes that went in."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import lz4.frame
import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from penstock.pipeline.errors import FormatError
from penstock.sources.storage._zstd_feed import Frames
from penstock.sources.storage.listing import expand
from penstock.sources.storage.stored import base_name
from penstock.sources.storage.unpack import BytesFeed, compression_of, head_of, open_feed

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "bz2": bz2.compress,
    "lz4": lz4.frame.compress,
    "xz": lzma.compress,
}
PACKED = [name for name in PACKERS if name != "none"]
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(path: Path, step: int, start: int = 0) -> tuple[bytes, str | None]:
    feed = open_feed(path)
    try:
        if start:
            feed.seek(start)
        parts = []
        while True:
            view = memoryview(bytearray(step))
            count = feed.fill(view)
            parts.append(bytes(view[:count]))
            if count < step:
                return b"".join(parts), feed.error
    finally:
        feed.close()


@QUICK
@given(
    parts=st.lists(st.binary(min_size=1, max_size=3000), min_size=1, max_size=4),
    kind=st.sampled_from(list(PACKERS)),
    step=st.integers(1, 5000),
    data=st.data(),
)
def test_any_packing_in_any_steps_gives_what_went_in(
    tmp_path: Path, parts: list[bytes], kind: str, step: int, data: st.DataObject
) -> None:
    content = b"".join(parts)
    if kind == "none" and compression_of(content) != "none":
        return
    path = tmp_path / "content"
    path.write_bytes(b"".join(PACKERS[kind](part) for part in parts))
    assert read(path, step) == (content, None)
    start = data.draw(st.integers(0, len(content)))
    assert read(path, step, start) == (content[start:], None)
    assert head_of(path, 100) == (content[:100], kind)


@pytest.mark.parametrize("kind", PACKED)
def test_a_stream_larger_than_the_read_ahead_arrives_whole(tmp_path: Path, kind: str) -> None:
    content = np.random.Generator(np.random.Philox(7)).bytes(1 << 20) * 6  # bz2 is slow on what is the same everywhere
    path = tmp_path / "large"
    path.write_bytes(PACKERS[kind](content))
    assert read(path, 777_777) == (content, None)


@QUICK
@given(content=st.binary(min_size=50, max_size=20_000), kind=st.sampled_from(PACKED), data=st.data())
def test_a_cut_stream_gives_what_came_before_and_says_so(
    tmp_path: Path, content: bytes, kind: str, data: st.DataObject
) -> None:
    packed = PACKERS[kind](content)
    keep = data.draw(st.integers(8, len(packed) - 1))
    path = tmp_path / "cut"
    path.write_bytes(packed[:keep])
    found, error = read(path, 4096)
    assert content.startswith(found)
    assert error is not None
    assert "ends early" in error and kind in error


@QUICK
@given(content=st.binary(min_size=50, max_size=5000), kind=st.sampled_from(PACKED), data=st.data())
def test_a_flipped_byte_never_raises_from_reading(
    tmp_path: Path, content: bytes, kind: str, data: st.DataObject
) -> None:
    packed = bytearray(PACKERS[kind](content))
    packed[data.draw(st.integers(6, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "flipped"
    path.write_bytes(bytes(packed))
    found, error = read(path, 1000)
    assert error is None or kind in error
    assert len(found) <= 2 * len(content) + (1 << 20)


def test_what_is_no_member_behind_a_member_is_named(tmp_path: Path) -> None:
    path = tmp_path / "behind"
    path.write_bytes(gzip.compress(b"first") + bytes(700) + b"garbage")
    found, error = read(path, 100)
    assert found == b"first"
    assert error is not None and "67 61 72 62" in error


def test_a_file_that_only_begins_like_a_packed_one_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "liar.gz"
    path.write_bytes(b"\x1f\x8b\x08 not really")
    with pytest.raises(FormatError, match=r"liar\.gz begins like gzip but does not unpack"):
        head_of(path)


def test_a_small_zstd_file_that_unpacks_to_much_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(zstandard.compress(bytes(300 << 20), 19))
    assert path.stat().st_size < 100_000
    feed = open_feed(path)
    view = memoryview(bytearray(1 << 16))
    assert feed.fill(view) == len(view)
    feed.close()


@QUICK
@given(
    parts=st.lists(st.binary(max_size=400_000), min_size=1, max_size=3),
    checksum=st.booleans(),
    sized=st.booleans(),
    step=st.integers(1, 70_000),
)
def test_frames_are_followed_to_their_ends(parts: list[bytes], checksum: bool, sized: bool, step: int) -> None:
    packer = zstandard.ZstdCompressor(write_checksum=checksum, write_content_size=sized)
    packed = b"\x50\x2a\x4d\x18\x03\0\0\0abc".join(packer.compress(part) for part in parts)
    frames = Frames()
    for at in range(0, len(packed), step):
        frames.feed(packed[at : at + step])
    assert frames.complete
    cut = Frames()
    cut.feed(packed[:-1])
    assert not cut.complete


SKIPPED = b"\x5e\x2a\x4d\x18\x05\0\0\0notes"


@pytest.mark.parametrize("kind", ["zstd", "lz4"])
def test_frames_without_content_may_stand_anywhere(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "frames"
    path.write_bytes(SKIPPED + SKIPPED + PACKERS[kind](b"first") + SKIPPED + PACKERS[kind](b"second") + SKIPPED)
    assert read(path, 3) == (b"firstsecond", None)
    assert head_of(path) == (b"firstsecond", kind)
    path.write_bytes(SKIPPED)
    assert read(path, 3) == (b"", None)


def test_a_longer_window_than_is_held_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "long.zst"
    for power, fits in ((28, True), (29, False)):
        long = zstandard.ZstdCompressionParameters(window_log=power, compression_level=1, write_content_size=False)
        packer = zstandard.ZstdCompressor(compression_params=long).compressobj()
        path.write_bytes(packer.compress(b"a line\n" * 100) + packer.flush())
        if fits:
            assert read(path, 64) == (b"a line\n" * 100, None)
        else:
            with pytest.raises(
                FormatError, match=r"needs a window of more than 256 MiB: unpack it with zstd -d --long=31"
            ):
                head_of(path)


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_the_only_file_of_a_zip_archive_is_its_content(tmp_path: Path, method: int) -> None:
    content = bytes(range(256)) * 3000
    path = tmp_path / "day.zip"
    path.write_bytes(zipped({"day/": b"", "day/ticks.csv": content}, method))
    assert read(path, 65_537) == (content, None)
    assert read(path, 65_537, 500_001) == (content[500_001:], None)
    assert head_of(path, 300) == (content[:300], "zip")


def test_other_zip_archives_are_refused_and_their_files_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "two.zip"
    path.write_bytes(zipped({"a.csv": b"first", "b.csv": b"second"}))
    with pytest.raises(FormatError, match=r"two\.zip is a zip archive of 2 files \(a\.csv, b\.csv\): unpack it"):
        open_feed(path)
    url = f"zip://b.csv::{path}"
    assert head_of(url) == (b"second", "none")
    assert expand(f"zip://*.csv::{path}") == [f"zip://a.csv::{path}", url]
    assert base_name(url) == "b.csv" and base_name("simplecache::https://host/c.csv?x=1") == "c.csv"
    path.write_bytes(zipped({}))
    with pytest.raises(FormatError, match=r"two\.zip is a zip archive without a file"):
        open_feed(path)


def test_a_damaged_zip_archive_never_raises_anything_else(tmp_path: Path) -> None:
    sound = zipped({"ticks.csv": bytes(range(200)) * 20})
    path = tmp_path / "damaged.zip"
    told = 0
    for at in range(2, len(sound)):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 0x55]) + sound[at + 1 :])
        try:
            _, error = read(path, 1000)
        except FormatError:
            told += 1
        else:
            told += error is not None
    path.write_bytes(sound[:-30])
    with pytest.raises(FormatError, match="does not unpack"):
        open_feed(path)
    assert told > len(sound) // 3


def test_bytes_in_memory_are_a_feed_too() -> None:
    feed = BytesFeed(b"0123456789")
    feed.seek(4)
    view = memoryview(bytearray(20))
    assert bytes(view[: feed.fill(view)]) == b"456789"
    assert feed.fill(view) == 0
