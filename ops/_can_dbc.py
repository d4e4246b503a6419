"""What a DBC file says about a message, as plain values: where each signal's bits are and what they mean.

The text is parsed by `cantools`, which also reads KCD, SYM and ARXML; nothing of it is left in the result, so a worker
that decodes needs neither the library nor the file. A DBC that it refuses is reduced to what says where bits are
(`_can_dbc_text`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..pipeline.errors import GraphError, MissingExtraError

__all__ = ["MessageLayout", "SignalLayout", "messages_of", "names"]

_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class SignalLayout:
    """A signal: raw value ``(bytes first, first + step, ... as a little-endian number) >> shift``, `length` bits of it.

    `kind` is ``u``, ``s`` or ``f`` (IEEE 754); the physical value is ``raw * scale + offset``. `need` is how many bytes a
    frame must have to hold it. With a `parent` (its index in the message) it is there only where the raw value of that
    signal lies in one of `ranges`.
    """

    name: str
    first: int
    step: int
    shift: int
    length: int
    kind: str
    scale: float
    offset: float
    need: int
    parent: int = -1
    ranges: tuple[tuple[int, int], ...] = ()
    labels: tuple[tuple[int, str], ...] = ()
    unit: str = ""


@dataclass(frozen=True)
class MessageLayout:
    """A message of a DBC file; `order` lists its signals so that each comes after its parent.

    `problem` says why its frames cannot be decoded, if so; it has no signals then.
    """

    name: str
    can_id: int
    ext: bool
    signals: tuple[SignalLayout, ...]
    order: tuple[int, ...]
    problem: str = ""

    @property
    def need(self) -> int:
        """Bytes a frame must have for every signal."""
        return max((signal.need for signal in self.signals), default=0)


def messages_of(dbc: str | os.PathLike[str]) -> tuple[MessageLayout, ...]:
    """All messages of a file, a URL or the text of one itself (it has line ends). Raises GraphError, MissingExtraError.

    The same file is parsed once.
    """
    text = os.fspath(dbc)
    if "\n" not in text:
        text = _read(text)
    return _parsed(text)


def _read(place: str) -> str:
    try:
        if "://" in place:
            import fsspec

            with fsspec.open(place, "rb") as file:
                raw = file.read(_MOST_BYTES + 1)
        else:
            with Path(place).expanduser().open("rb") as file:
                raw = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise GraphError(f"the DBC file cannot be read: {error}") from None
    if len(raw) > _MOST_BYTES:
        raise GraphError(f"{place} has more than {_MOST_BYTES} bytes: it is no DBC file")
    try:
        return bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        return bytes(raw).decode("cp1252", "replace")


@lru_cache(maxsize=16)
def _parsed(text: str) -> tuple[MessageLayout, ...]:
    try:
        import cantools
    except ImportError:
        raise MissingExtraError("reading DBC files", "cantools", "can") from None
    kind = _kind(text)
    try:
        database: Any = cantools.database.load_string(text, kind, strict=False)
    except Exception as error:  # whatever its parser raises
        told = " ".join(str(error).split())[:300]
        if kind != "dbc":
            raise GraphError(f"the {kind.upper()} file cannot be parsed: {told}") from None
        return _reduced(text, told)
    return tuple(_layout(message) for message in database.messages)


def _kind(text: str) -> str:
    """What cantools calls the format of a file: by its content, since a name tells less."""
    head = text[:4096].lstrip("\ufeff \t\r\n")
    if head.startswith("<"):
        return "kcd" if "NetworkDefinition" in head else "arxml"
    return "sym" if re.search(r"^\s*FormatVersion\s*=", head, re.M) else "dbc"


def _reduced(text: str, refused: str) -> tuple[MessageLayout, ...]:
    """The messages of a DBC that cantools `refused`, by its statements about bits alone."""
    import cantools

    from ._can_dbc_text import reduced

    try:
        mended = reduced(text)
        database: Any = cantools.database.load_string(mended.text, "dbc", strict=False)
    except Exception as error:  # what cantools said of the file as it is tells more than what it says of the rest
        also = f"; without what is not needed: {error}" if isinstance(error, ValueError) else ""
        raise GraphError(f"the DBC file cannot be parsed: {refused}{also}") from None
    loaded = {message.name: message for message in database.messages}
    layouts = []
    for i, told in enumerate(mended.messages):
        if told.number is None:
            problem = f"message {told.name!r} has the identifier 0x{told.key:x}, which no CAN frame has"
            layouts.append(MessageLayout(told.name, told.key, True, (), (), problem))
            continue
        message = loaded[f"M{i}"]
        for signal in message.signals:
            signal.multiplexer_signal = told.signals.get(signal.multiplexer_signal)
            signal.name = told.signals[signal.name]
        message.name = told.name
        layouts.append(_layout(message))
    return tuple(layouts)


def _layout(message: Any) -> MessageLayout:
    try:
        return _message(message)
    except GraphError as error:  # a message nobody may ask for
        return MessageLayout(message.name, message.frame_id, bool(message.is_extended_frame), (), (), str(error))


def _message(message: Any) -> MessageLayout:
    signals = list(message.signals)
    index = {signal.name: i for i, signal in enumerate(signals)}
    found = tuple(_signal(message.name, signal, index) for signal in signals)
    order: list[int] = []
    for i in range(len(found)):
        chain: list[int] = []
        while i >= 0 and i not in order:
            if i in chain:
                raise GraphError(f"in message {message.name!r} the signal {found[i].name!r} selects itself")
            chain.append(i)
            i = found[i].parent
        order += reversed(chain)
    return MessageLayout(message.name, message.frame_id, bool(message.is_extended_frame), found, tuple(order))


def _signal(message: str, signal: Any, index: dict[str, int]) -> SignalLayout:
    name, start, length = signal.name, signal.start, signal.length
    little = signal.byte_order == "little_endian"
    if not 1 <= length <= 64:
        raise GraphError(f"signal {message}.{name} has {length} bits; 1 to 64 are read")
    if signal.is_float and length not in (16, 32, 64):
        raise GraphError(f"signal {message}.{name} is a floating-point number of {length} bits")
    if little:
        first, last, step, shift = start // 8, (start + length - 1) // 8, 1, start % 8
    else:  # `start` is its highest bit; bits go down within a byte and on in the next one
        end = start // 8 * 8 + 7 - start % 8 + length - 1
        first, last, step, shift = end // 8, start // 8, -1, 7 - end % 8
    if max(first, last) >= 64:
        raise GraphError(f"signal {message}.{name} goes beyond the 64 bytes of a CAN FD frame")
    parent = index.get(signal.multiplexer_signal, -1) if signal.multiplexer_ids else -1
    labels = sorted((int(value), str(label)) for value, label in (signal.choices or {}).items())
    return SignalLayout(
        name,
        first,
        step,
        shift,
        length,
        "f" if signal.is_float else "s" if signal.is_signed else "u",
        float(signal.scale),
        float(signal.offset),
        max(first, last) + 1,
        parent,
        _ranges(signal.multiplexer_ids) if parent >= 0 else (),
        () if signal.is_float else tuple(labels),
        signal.unit or "",
    )


def _ranges(values: Iterable[int]) -> tuple[tuple[int, int], ...]:
    found: list[list[int]] = []
    for value in sorted(values):
        if found and value <= found[-1][1] + 1:
            found[-1][1] = value
        else:
            found.append([value, value])
    return tuple((low, high) for low, high in found)


def names(messages: Sequence[MessageLayout]) -> str:
    """Some names, for an error."""
    told = ", ".join(message.name for message in messages[:20])
    return told + (f", ... ({len(messages)} in all)" if len(messages) > 20 else "")
