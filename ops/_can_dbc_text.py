"""DBC files that `cantools` refuses, reduced to the statements that say where bits are.

Real files have names that begin with a digit, comments and value tables of messages that were taken out, numbers such as
``.25`` and 29-bit identifiers without the bit that marks them. None of that makes a signal's place uncertain. What is left
here is written anew: messages, signals, value tables, floats and extended multiplexing, under made-up names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["Reduced", "reduced"]

_EXTENDED, _WIDEST = 1 << 31, 0x1FFFFFFF
_MESSAGE = re.compile(r"BO_\s+(\d+)\s+([^\s:]+)\s*:\s*(\d+)(?:\s+(\S+))?")
_SIGNAL = re.compile(
    r"SG_\s+([^\s:]+)\s*(M|m\d*M?)?\s*:\s*(\d+)\s*\|\s*(\d+)\s*@\s*([01])\s*([+-])\s*\(([^,]*),([^)]*)\)([^\"]*(\"[^\"]*\")?.*)"
)
_TEXT = r'"(?:\\"|[^"])*"'
_VALUES = re.compile(rf"^[ \t]*VAL_\s+(\d+)\s+([^\s:]+)((?:\s+-?\d+\s*{_TEXT})*)\s*;", re.M)
_FLOAT = re.compile(r"^[ \t]*SIG_VALTYPE_\s+(\d+)\s+([^\s:]+)\s*:?\s*(\d)\s*;", re.M)
_SELECTED = re.compile(r"^[ \t]*SG_MUL_VAL_\s+(\d+)\s+([^\s:]+)\s+([^\s:]+)\s+([\d\s,-]+);", re.M)


@dataclass(frozen=True)
class Reduced:
    """The file in a form that cantools takes; its `messages` in order, with their signals' names by made-up name."""

    text: str
    messages: tuple[_Message, ...]


@dataclass(frozen=True)
class _Message:
    """A message: its name, its identifier as a DBC has it (None: the file's is none of CAN) and its signals' lines."""

    name: str
    key: int
    number: int | None
    length: int
    signals: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


def reduced(text: str) -> Reduced:
    """What `text` says about the bits of messages. Raises ValueError, naming the line, where that cannot be read."""
    messages = tuple(_messages(text))
    if not messages:
        raise ValueError("no line begins with BO_ (a message)")
    out = ['VERSION ""']
    found: dict[int, tuple[int, dict[str, str]]] = {}
    for i, message in enumerate(messages):
        if message.number is not None:
            out += [f"BO_ {message.number} M{i}: {message.length} Vector__XXX", *message.lines, ""]
            made = {name: made for made, name in message.signals.items()}
            found.setdefault(message.key, (message.number, made))
    out += _about_signals(text, found)
    return Reduced("\n".join(out) + "\n", messages)


def _messages(text: str) -> Iterator[_Message]:
    current: _Message | None = None
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if line.startswith("BO_ "):
            if current is not None:
                yield current
            current = _message(line, number)
        elif line.startswith("SG_ "):
            if current is None:
                raise ValueError(f"line {number} is a signal of no message: {line[:80]}")
            made = f"S{len(current.lines)}"
            name, written = _signal(line, made, number)
            current.signals[made] = name
            current.lines.append(written)
    if current is not None:
        yield current


def _message(line: str, number: int) -> _Message:
    found = _MESSAGE.fullmatch(line)
    if found is None:
        raise ValueError(f"line {number} is no message: {line[:80]}")
    key = int(found[1])
    bits = key & ~_EXTENDED
    known: int | None = key | _EXTENDED if bits > 0x7FF else key
    return _Message(found[2], key, known if bits <= _WIDEST else None, int(found[3]))


def _signal(line: str, made: str, number: int) -> tuple[str, str]:
    found = _SIGNAL.fullmatch(line)
    try:
        if found is None:
            raise ValueError("not a signal's form")
        scale, offset = float(found[7]), float(found[8])
    except ValueError:
        raise ValueError(f"line {number} is no signal: {line[:80]}") from None
    place = f"{int(found[3])}|{int(found[4])}@{found[5]}{found[6]}"
    selector = f" {found[2]}" if found[2] else ""
    unit = found[10] or '""'
    return found[1], f" SG_ {made}{selector} : {place} ({scale!r},{offset!r}) [0|0] {unit} Vector__XXX"


def _about_signals(text: str, found: dict[int, tuple[int, dict[str, str]]]) -> Iterator[str]:
    """Statements about signals that are there."""
    for statement in _FLOAT.finditer(text):
        number, made = found.get(int(statement[1]), (0, {}))
        if statement[2] in made:
            yield f"SIG_VALTYPE_ {number} {made[statement[2]]} : {statement[3]};"
    for statement in _VALUES.finditer(text):
        number, made = found.get(int(statement[1]), (0, {}))
        if statement[2] in made and statement[3]:
            yield f"VAL_ {number} {made[statement[2]]}{statement[3]} ;"
    for statement in _SELECTED.finditer(text):
        number, made = found.get(int(statement[1]), (0, {}))
        if statement[2] in made and statement[3] in made:
            yield f"SG_MUL_VAL_ {number} {made[statement[2]]} {made[statement[3]]} {statement[4].strip()};"
