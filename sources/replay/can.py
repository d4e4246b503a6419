"""CAN logs as candump's lines: ``(1436509052.249713) can0 044#2A366C2B00000000``.

Lines that a log has in this form go out as they are, damaged ones included; what is written otherwise (candump's screen
output, .asc, .blf, .trc) is written anew from the frame, on interface ``can<channel>``. Times have six decimals,
nine where they need them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ...pipeline.columns import as_numpy
from ._decoded import UNREAD, count, decoded_blocks
from .message import Message, Playable

__all__ = ["asc_playable", "blf_playable", "can_line", "candump_playable", "trc_playable"]

_INTERFACE = re.compile(rb"[ \t]*\([0-9.]*\)[ \t]+([^ \t]{1,15})[ \t]")
_REMOTE, _ERROR = 1 << 30, 1 << 29


def can_line(ts_ns: int, interface: bytes, can_id: int, ext: bool, fd: bool, data: bytes) -> bytes:
    """A frame as ``candump -l`` writes it; of a remote frame `data` are as many bytes as it asks for."""
    seconds, ns = divmod(ts_ns, 10**9)
    part = b"%09d" % ns if ns % 1000 else b"%06d" % (ns // 1000)
    number = can_id & ~_REMOTE
    name = b"%08X" % number if ext or number & _ERROR else b"%03X" % number
    if can_id & _REMOTE:
        body = b"#R%d" % len(data) if data else b"#R"
    else:
        body = (b"##0" if fd else b"#") + data.hex().upper().encode()
    return b"(%d.%s) %s %s%s" % (seconds, part, interface, name, body)


def candump_playable(path: str, **options: Any) -> Playable:
    """The lines of a candump log; `options` are those of `Candump`. A damaged line goes out with the one before it."""
    from ..driving.candump import Candump

    return _log(Candump(path, **{"fd": True, **options}), verbatim=True)


def asc_playable(path: str, **options: Any) -> Playable:
    """The frames of an .asc log; `options` are those of `Asc`. Times count from 1970 where the log has no date."""
    from ..driving.asc import Asc

    return _log(Asc(path, **{"fd": True, **options}), verbatim=False)


def blf_playable(path: str, **options: Any) -> Playable:
    """The frames of a BLF log; `options` are those of `Blf`. Times count from 1970 where the log has no start."""
    from ..driving.blf import Blf

    return _log(Blf(path, **{"fd": True, **options}), verbatim=False)


def trc_playable(path: str, **options: Any) -> Playable:
    """The frames of a trace of PEAK; `options` are those of `Trc`. Times count from 1970 where the trace has no start."""
    from ..driving.trc import Trc

    return _log(Trc(path, **{"fd": True, **options}), verbatim=False)


def _log(spec: Any, *, verbatim: bool) -> Playable:
    skipped: dict[str, int] = {}

    def messages() -> Iterator[Message]:
        from ..driving._can_lines import _Lines

        latest: int | None = None
        for block, decoded in decoded_blocks(spec):
            if not verbatim:
                count(skipped, "lines or objects that are no sound frames", len(decoded.bad))
                for _, _, message in _frames(decoded.batches, {}):
                    yield message
                continue
            if not isinstance(block.payload, _Lines):
                count(skipped, UNREAD, len(decoded.bad))
                continue
            lines = _lines_of(block.payload)
            names = dict(enumerate(found[1] if (found := _INTERFACE.match(line)) else b"" for line in lines))
            rows = {seq - block.first_seq: message for seq, _, message in _frames(decoded.batches, names, block)}
            for i, line in enumerate(lines):
                made = rows.get(i)
                latest = made.ts_ns if made is not None else latest
                if latest is None:
                    count(skipped, "lines before the first that has a time")
                else:
                    yield Message(latest, line if made is None or b"#" in line else made.data)

    return Playable(messages, text=True, framing="lines", skipped=skipped)


def _lines_of(payload: Any) -> list[bytes]:
    """The lines of a block."""
    pairs = zip(payload.starts.tolist(), payload.lengths.tolist(), strict=True)
    return [payload.data[start : start + length].tobytes().rstrip() for start, length in pairs]


def _frames(batches: Any, names: dict[int, bytes], block: Any = None) -> Iterator[tuple[int, int, Message]]:
    """Number, bus and line of each row; `names` are interfaces by the number of the line in its block."""
    for batch in batches:
        found = zip(
            as_numpy(batch["ts_recv"]).tolist(),
            as_numpy(batch["seq"]).tolist(),
            as_numpy(batch["bus"]).tolist(),
            as_numpy(batch["can_id"]).tolist(),
            batch["ext"].to_pylist(),
            batch["fd"].to_pylist(),
            as_numpy(batch["len"]).tolist(),
            batch["data"].to_pylist(),
            strict=True,
        )
        for ts_ns, seq, bus, can_id, ext, fd, size, data in found:
            name = names.get(seq - block.first_seq, b"") if block is not None else b"can%d" % bus
            yield seq, bus, Message(ts_ns, can_line(ts_ns, name or b"can%d" % bus, can_id, ext, fd, data[:size]))
