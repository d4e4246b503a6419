"""Recorder lines to columns, with the state that goes from one to the next: names of symbols, books and their gaps.

It does no I/O: a live feed hands it lines ``<receive time in ns> <message>`` just as the file source does and so gets the
same rows. Lines go through it once and in order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from ...pipeline.columns import ColumnLayout
from ...pipeline.context import BadRecord
from ...pipeline.memory import BufferPool
from ..text._line_framer import Text
from ._crypto_books import Books, complaint
from ._crypto_kernels import (
    AT,
    BOOK_CODE,
    DONE,
    FIRST,
    LAST,
    LINE,
    LINE_END,
    NEW_SYMBOL,
    NO_LEVELS,
    PREV,
    RECORD,
    ROW,
    ROWS_FULL,
    SLOW,
    START,
    STATE,
    SYMBOL_AT,
    SYMBOL_SIZE,
    scan,
)
from ._crypto_messages import BadMessage, Event, Message
from ._crypto_object_kernels import AGG_TRADE, BBO, DEPTH, TRADE
from ._crypto_rows import MOST_SYMBOLS, Rows, Symbols, address

__all__ = ["Layout", "LineDecoder", "Made"]

_LINE = re.compile(rb"[ \t\r]*([0-9]{1,19})[ \t]+([^ \t].*)", re.DOTALL)
_KINDS = {"bbo": BBO, "trade": TRADE, "agg_trade": AGG_TRADE, "l2": DEPTH}
_NAMES = ("bookTicker", "trade", "aggTrade", "depthUpdate")
#: Bytes of text for each row that memory is made for at first.
_TEXT_A_LEVEL, _TEXT_A_ROW = 20, 90
_LEAST_ROOM = 64
#: Bytes of the shortest level, ``["1","1"],``.
_LEAST_LEVEL = 10


@dataclass(slots=True)
class Made:
    """What lines became."""

    batches: list[pa.RecordBatch] = field(default_factory=list)
    bad: list[BadRecord] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Layout:
    """Which rows to make of which messages.

    `read` is the venue's general path: a decoded message to its `Message`; `fast` says that the scanner knows the venue.
    `symbol` names the book of snapshots that do not say (Binance REST); None: that of the only book there is, `first_symbol`
    before there is one. `file` is for the places of bad records.
    """

    read: Callable[[Any, int], Message]
    fast: bool
    table: str
    schema: pa.Schema
    price_decimals: int
    symbol: str | None
    first_symbol: str | None
    file: str


class LineDecoder:
    """Turns the lines of one recording into one table. `saved` is what `save` gave."""

    def __init__(self, layout: Layout, pool: BufferPool, saved: Mapping[str, Any] | None = None) -> None:
        self.layout, self.pool, self.columns = layout, pool, ColumnLayout(layout.schema)
        self.symbols = Symbols(saved["symbols"] if saved else ())
        self.books = Books(saved["books"] if saved else ())
        self._names: list[str] = []
        self._slots = np.zeros(64 * 3, np.int64)
        self._parse = msgspec.json.Decoder(float_hook=str).decode

    def save(self) -> dict[str, Any]:
        """Names and books as plain values, for `saved`."""
        if len(self._names) != len(self.symbols.names):
            self._names = list(self.symbols.names)
        return {"symbols": self._names, "books": self.books.save()}

    def decode(self, lines: Text) -> Made:
        """The rows of some lines, in order, the lines that are no messages, and the gaps that they show."""
        work = _Pass(self, lines)
        end, state, kind = work.base + lines.size, work.state, _KINDS[self.layout.table]
        while True:
            if self.layout.fast:
                status = scan(
                    end, state, work.rows.room, kind, address(work.rows.columns), self.symbols.table, self.books.last_ids,
                    work.passed, self.layout.price_decimals, address(self._slots),
                )  # fmt: skip
            else:
                status = work.next_line()
            if status == DONE:
                return work.finish()
            if status == NEW_SYMBOL:
                at = int(state[SYMBOL_AT])
                code = self.symbols.code(work.text(at, at + int(state[SYMBOL_SIZE])).decode())
                if code < 0:  # the general path says so
                    state[LINE_END] = int(state[AT]) + work.line_size(int(state[AT]))
                    work.read_line()
                else:
                    self.books.room_for(code)
            elif status == ROWS_FULL:
                work.make_room()
            elif status == SLOW:
                work.read_line()
            else:
                work.judge_last()

    def message(self, line: bytes) -> tuple[int, Message]:
        """A line's receive time and message, on the general path. Raises BadMessage."""
        match = _LINE.fullmatch(line)
        if match is None:
            raise BadMessage("the line does not begin with a receive time in ns and a blank")
        recv = int(match[1])
        if recv >= 1 << 63:
            raise BadMessage(f"the receive time {recv} is beyond the year 2262")
        try:
            return recv, self.layout.read(self._parse(match[2]), self.layout.price_decimals)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadMessage(str(error)) from None
        except RecursionError:
            raise BadMessage("the JSON is nested too deep") from None

    def coded(self, message: Message) -> list[tuple[int, Event]]:
        """The events for this table with the numbers of their symbols. Raises BadMessage."""
        coded = []
        for event in message.events:
            if event.table == self.layout.table:
                name = self._only_symbol() if event.symbol is None else event.symbol
                code = self.symbols.code(name)
                if code < 0:
                    raise BadMessage(f"{name!r} would be symbol {MOST_SYMBOLS + 1} of at most {MOST_SYMBOLS}")
                self.books.room_for(code)
                coded.append((code, event))
        return coded

    def _only_symbol(self) -> str:
        if self.layout.symbol is not None:
            return self.layout.symbol
        names = self.symbols.names
        if len(names) == 1:
            return names[0]
        if not names and self.layout.first_symbol is not None:
            return self.layout.first_symbol
        many = "the recording has several" if names else "none is known yet"
        raise BadMessage(f"the snapshot does not say of which symbol it is, and {many}: name it with symbol=")


class _Pass:
    """One pass of a decoder over some lines."""

    def __init__(self, decoder: LineDecoder, lines: Text) -> None:
        self._decoder, self._lines, self._layout = decoder, lines, decoder.layout
        self._data = lines.lease.array(np.uint8, lines.size)
        self.base = address(self._data)
        self.state = np.zeros(STATE, np.int64)
        self.state[AT], self.state[RECORD], self.state[LINE] = self.base, lines.seq, lines.line
        self.passed = np.zeros(NO_LEVELS + 1, np.int64)
        self._made = Made()
        self._text_a_row = _TEXT_A_LEVEL if self._layout.table == "l2" else _TEXT_A_ROW
        self.rows = self._new_rows(0)

    def _new_rows(self, least: int) -> Rows:
        left = self.base + self._lines.size - int(self.state[AT])
        room = max(left // self._text_a_row, least, _LEAST_ROOM)
        return Rows(self._decoder.pool, self._decoder.columns, room)

    def make_room(self, least: int = 0) -> None:
        """Close the batch and begin one with room for `least` rows, and for all of a line that an empty one did not hold."""
        if not self.state[ROW]:
            least = max(self.line_size(int(self.state[AT])) // _LEAST_LEVEL + 1, least)
        self._close()
        self.rows = self._new_rows(least)

    def _close(self) -> None:
        if self.state[ROW]:
            self._made.batches.append(self.rows.batch(int(self.state[ROW]), self._decoder.symbols.values()))
            self.state[ROW] = 0

    def finish(self) -> Made:
        """What the lines became."""
        self._close()
        for name, count in zip(_NAMES, self.passed.tolist(), strict=False):
            self._drop(f"not in market.{self._layout.table}: {name}", count)
        self._drop("no levels: depthUpdate", int(self.passed[NO_LEVELS]))
        return self._made

    def _drop(self, reason: str, count: int = 1) -> None:
        if count:
            self._made.dropped[reason] += count

    def text(self, start: int, stop: int) -> bytes:
        """The bytes between two addresses."""
        return self._data[start - self.base : stop - self.base].tobytes()

    def line_size(self, start: int) -> int:
        """Bytes of the line at an address, without its newline."""
        at, step = start - self.base, 4096
        while at < len(self._data):
            found = self._data[at : at + step].tobytes().find(b"\n")
            if found >= 0:
                return self.base + at + found - start
            at, step = at + step, step * 2
        return self.base + len(self._data) - start

    def next_line(self) -> int:
        """Step to the next line that is not blank, for the general path: SLOW, or DONE at the end."""
        at, end = int(self.state[AT]), self.base + self._lines.size
        while at < end:
            size = self.line_size(at)
            if self.text(at, at + size).strip(b" \t\r"):
                self.state[AT], self.state[LINE_END] = at, at + size
                return SLOW
            self.state[LINE] += at + size < end
            at += size + 1
        return DONE

    def read_line(self) -> None:
        """Read the line that the state points to by the general path, and step over it."""
        state, end = self.state, self.base + self._lines.size
        start, stop = int(state[AT]), int(state[LINE_END])
        line, seq = self.text(start, stop), int(state[RECORD])
        place = self._place(start, int(state[LINE]))
        try:
            recv, message = self._decoder.message(line)
            coded = self._decoder.coded(message)
        except BadMessage as error:
            why = f"the recording ends inside this line: {error}" if stop == end else str(error)
            self._made.bad.append(BadRecord(place, "crypto.decode", why, line, seq))
        else:
            count = sum(len(event.rows) for _, event in coded)
            if state[ROW] + count > self.rows.room:
                self.make_room(count)
            if not coded:
                self._drop(f"not in market.{self._layout.table}: {message.kind}")
            elif not count:
                self._drop(f"no levels: {message.kind}")
            for code, event in coded:
                self._put(recv, seq, code, event)
                if event.checked:
                    self._judge(code, event, (place, line, seq))
        state[RECORD] += 1
        state[LINE] += stop < end
        state[AT] = min(stop + 1, end)

    def _put(self, recv: int, seq: int, code: int, event: Event) -> None:
        if event.rows:
            more: tuple[Any, ...] = ()
            if event.table == "l2":
                more = (event.first_id, event.last_id, event.prev_id or 0, event.is_snapshot, 0)
            stamps = (recv if event.ts_event is None else event.ts_event, recv, seq)
            self.state[ROW] = self.rows.put(int(self.state[ROW]), stamps, code, event.rows, more)

    def judge_last(self) -> None:
        """Judge the change of a book that the scanner has just passed."""
        state = self.state
        start, stop, prev = int(state[START]), int(state[LINE_END]), int(state[PREV])
        event = Event("l2", None, None, [], int(state[FIRST]), int(state[LAST]), None if prev < 0 else prev)
        number = int(state[LINE]) - (int(state[AT]) > stop)
        place = (self._place(start, number), self.text(start, stop), int(state[RECORD]) - 1)
        self._judge(int(state[BOOK_CODE]), event, place)

    def _judge(self, code: int, event: Event, place: tuple[str, bytes, int]) -> None:
        error = complaint(self._decoder.symbols.names[code], self._decoder.books.judge(code, event))
        if error is not None:
            self._made.bad.append(BadRecord(place[0], "crypto.book", error, place[1], place[2]))

    def _place(self, start: int, line: int) -> str:
        return f"{self._layout.file}, line {line}, byte {self._lines.offset + start - self.base}"
