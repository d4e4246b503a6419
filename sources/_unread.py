"""What a file is that no format here reads, and what its owner can do: better than its first bytes in hexadecimal."""

from __future__ import annotations

import re

from .storage.unpack import compression_of
from .text._ndjson_detect import follows_object

__all__ = ["archive_in", "what_it_is"]

_SHOWN = 60
_RECORDER = re.compile(rb"[ \t]*[0-9]{10,19}[ \t]+[{\[]")
_BOOK = re.compile(rb"-?[0-9]+(,-?[0-9]+){3,}")
_PARQUET = "write it as Parquet and read that with sources.ParquetTicks"
#: How definitions of each DBN version begin: their length in words, and their record type.
_DEFINITIONS = {b"\x5a\x13": 1, b"\x64\x13": 2, b"\x82\x13": 3}
_PICTURE = "a single picture: pictures are read from MCAP, bags, video, and the folders of KITTI and nuScenes"
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs",
        "the pointer that Git LFS leaves in place of a file: fetch the file with 'git lfs pull'",
    ),
    (b"\x02\x21\x4c\x18", "packed in lz4's legacy format: unpack it with 'lz4 -d'"),
    (b"\x1f\x9d", "packed by compress (.Z): unpack it with 'uncompress'"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive: unpack it with '7z x'"),
    (b"Rar!\x1a\x07", "a RAR archive: unpack it first"),
    (b"\xff\x06\0\0sNaPpY", "packed in snappy's framing format: unpack it first"),
    (b"snoop\0\0\0", "a snoop capture: convert it with 'editcap -F pcapng'"),
    (b"\xff\xff\xff\xff", f"perhaps an Arrow IPC stream: {_PARQUET}, or write an IPC file"),
    (b"PARE", "an encrypted Parquet file: decrypt it first"),
    (b"ORC", f"an ORC file: {_PARQUET}"),
    (b"Obj\x01", f"an Avro file: {_PARQUET}"),
    (b"\x89HDF\r\n\x1a\n", f"an HDF5 file: {_PARQUET}"),
    (
        b"\x93NUMPY",
        f"a NumPy array: if it is part of a data set (comma2k19), open the folder of the recording; else {_PARQUET}",
    ),
    (b"\xff\xd8\xff", _PICTURE),
    (b"\x89PNG\r\n", _PICTURE),
    (b";$FILEVERSION=", "a trace of PEAK that is none of CAN, perhaps of LIN, which is not read"),
    (
        b"MDF     ",
        "a measurement file of ASAM (MDF): convert it with python-can: 'can_logconvert log.mf4 log.blf' if it is a log of "
        "CAN frames",
    ),
    (b"#ROSBAG V1", "a ROS 1 bag older than version 2.0: write it anew with 'rosbag filter old.bag new.bag True'"),
    (b"#ROSRECORD", "a ROS 1 bag older than version 2.0: write it anew with 'rosbag filter old.bag new.bag True'"),
    (b"# .PCD", "a single point cloud (PCD), not a recording: clouds are read from bags, MCAP, KITTI and nuScenes"),
    (b"SQLite format 3\0", "an SQLite database, but no rosbag2"),
    (b"\xd0\xcf\x11\xe0", f"an Office document: {_PARQUET}"),
    (b"<!DOCTYPE", "a web page: what a server sends in place of a file that it does not have"),
    (b"<html", "a web page: what a server sends in place of a file that it does not have"),
    (b"\xff\xfe", "UTF-16 text: convert it with 'iconv -f UTF-16 -t UTF-8'"),
    (b"\xfe\xff", "UTF-16 text: convert it with 'iconv -f UTF-16 -t UTF-8'"),
)


def archive_in(head: bytes) -> str | None:
    """What to do with a file whose content begins with `head` if that is a tar archive, in which other formats show."""
    if head[257:262] != b"ustar":
        return None
    return "a tar archive: unpack it with 'tar -xf' and read its files with sources.files"


def what_it_is(head: bytes, compression: str) -> str | None:
    """What a file whose content begins with `head` is, and what to do with it; None if that is not known either."""
    if compression != "none" and compression_of(head) != "none":
        return f"packed twice ({compression_of(head)} inside {compression}): unpack it once"
    for magic, what in _MAGIC:
        if head.startswith(magic):
            return what
    if (version := _DEFINITIONS.get(head[:2])) is not None:
        return (
            f"perhaps Databento definitions without the head of a DBN file: "
            f"sources.Dbn(path, schema='definition', version={version}) reads them"
        )
    if head[:3] == b"\x5d\0\0" and head[5:13] == b"\xff" * 8:
        return "packed in the format before xz (.lzma): unpack it with 'unlzma'"
    return _text(head.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n"))


def _text(text: bytes) -> str | None:
    if not text or any(byte < 32 and byte not in b"\t\r\n\x1b\f\x1e" for byte in text[:4096]):
        return None
    if text[:1] in b"{\x1e":
        return _objects(text) or (
            "a JSON document over several lines: read an array in it with sources.JsonArray(path, columns={..}, "
            "at='path.to.the.array'), or write it on one line with 'jq -c .'"
        )
    if text[:1] == b"[":
        return "a JSON array, but not of objects: write its elements as objects, one a line"
    first = text.split(b"\n", 1)[0].strip(b"\r")
    if _RECORDER.match(first):
        return (
            "a recording of JSON messages with their times, but of no venue known here: "
            "if they are of one, say which, as in sources.CryptoRaw(path, venue='binance-spot')"
        )
    if _BOOK.fullmatch(first) and first.count(b",") % 4 == 3:
        return (
            "numbers in fours, as an order book of LOBSTER has them, but no book: prices are not in order; if it is one, "
            "sources.Lobster(path, messages='..._message_10.csv') reads it with the file of messages beside it"
        )
    for separator in (b",", b"\t", b";", b"|"):
        names = first.split(separator)
        if len(names) > 1 and text.count(separator) >= text.count(b"\n"):
            shown = first.decode("utf-8", "replace")[:_SHOWN]
            return f"a table of text that begins with {shown!r}, in a layout not known here: {_PARQUET}"
    return f"text in no format known here, which begins with {first.decode('utf-8', 'replace')[:_SHOWN]!r}"


def _objects(text: bytes) -> str | None:
    """What is wrong with objects that are meant to be records."""
    if text[:1] == b"\x1e":
        return "a sequence of JSON texts behind record separators: take those out with 'tr -d \\\\036'"
    first = text.split(b"\n", 1)[0].strip()
    if text[1:].lstrip()[:1] == b"'":
        return "objects in single quotes, as Python prints them: write them with json.dumps, one a line"
    if first.endswith(b"},"):
        return "JSON objects one a line, each with a comma behind it: take those off with \"sed 's/,$//'\""
    if follows_object(text):
        return "JSON objects one behind the other: write one a line with 'jq -c .'"
    return None
