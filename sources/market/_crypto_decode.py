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

from ...pipeline.context import BadRecord
from ...pipeline.memory import BufferPool, Lease
from ._book_sync import BookSync, Step, Verdict
from ._crypto_kernels import (
    AGG_TRADE,
    AT,
    BBO,
    BOOK,
    BOOK_CODE,
    DEPTH,
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
    TRADE,
    scan,
)
from ._crypto_messages import BadMessage, Event, Message
from ._crypto_rows import MOST_SYMBOLS, Rows, Symbols, address

__all__ = ["LineDecoder", "Lines", "Made"]

_LINE = re.compile(rb"[ \t\r]*([0-9]{1,19})[ \t]+([^ \t].*)", re.DOTALL)
_KINDS = {"bbo": BBO, "trade": TRADE, "agg_trade": AGG_TRADE, "l2": DEPTH}
_NAMES = ("bookTicker", "trade", "aggTrade", "depthUpdate")
#: Bytes of text for each row that memory is made for at first, by table.
_TEXT_A_ROW = {"l2": 20}
_LEAST_ROOM = 64


@dataclass(frozen=True, slots=True)
class Lines:
    """Whole lines: `size` bytes at the start of a block of memory, at least `PADDING` zeros behind them.

    `offset`, `line` (from 1) and `seq` say where the first stands in the recording; `records` how many are not blank.
    """

    lease: Lease
    size: int
    offset: int
    line: int
    seq: int
    records: int


@dataclass(slots=True)
class Made:
    """What lines became."""

    batches: list[pa.RecordBatch] = field(default_factory=list)
    bad: list[BadRecord] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


class LineDecoder:
    """Turns the lines of one recording into one table.

    `read` is the venue's general path: a decoded message to its `Message`. `fast` says that the scanner knows the venue.
    `symbol` names the book of snapshots that do not say (Binance REST); None: that of the only book there is, `first_symbol`
    before there is one. `saved` is what `save` gave.
    """

    def __init__(
        self,
        *,
        read: Callable[[Any, int], Message],
        fast: bool,
        table: str,
        schema: pa.Schema,
        price_decimals: int,
        symbol: str | None,
        first_symbol: str | None,
        file: str,
        pool: BufferPool,
        saved: Mapping[str, Any] | None = None,
    ) -> None:
        self._read, self._fast, self._table, self._schema = read, fast, table, schema
        self._unit, self._file, self._pool = price_decimals, file, pool
        self._symbol, self._first_symbol = symbol, first_symbol
        self._symbols = Symbols(saved["symbols"] if saved else ())
        self._books: dict[tuple[int, str], BookSync] = {}
        for code, name, book in saved["books"] if saved else ():
            self._books[int(code), str(name)] = BookSync.load(book)
        self._last_ids = np.full(64, -1, np.int64)
        for (code, name), book in self._books.items():
            self._room_for(code)
            if not name:
                self._tell(code, book)
        self._names: list[str] = []
        self._slots = np.zeros(64 * 3, np.int64)
        self._parse = msgspec.json.Decoder(float_hook=str).decode
        self.gaps: Counter[str] = Counter()

    def save(self) -> dict[str, Any]:
        """Names and books as plain values, for `saved`."""
        if len(self._names) != len(self._symbols.names):
            self._names = list(self._symbols.names)
        return {"symbols": self._names, "books": [[*key, self._known(key).save()] for key in self._books]}

    # books: the numbers of the scanner and those of `BookSync` are kept equal where the scanner may go on alone

    def _room_for(self, code: int) -> None:
        while code >= len(self._last_ids):
            self._last_ids = np.concatenate([self._last_ids, np.full(len(self._last_ids), -1, np.int64)])

    def _known(self, key: tuple[int, str]) -> BookSync:
        book = self._books.get(key)
        if book is None:
            book = self._books[key] = BookSync()
        elif not key[1] and self._last_ids[key[0]] >= 0:
            book.last_id = int(self._last_ids[key[0]])
        return book

    def _tell(self, code: int, book: BookSync) -> None:
        alone = book.run_from is not None and book.last_id is not None and book.last_id < 1 << 63
        self._last_ids[code] = book.last_id if alone else -1

    def _judge(self, made: Made, code: int, event: Event, line: tuple[int, int, bytes, int]) -> None:
        book = self._known((code, event.book))
        if event.is_snapshot:
            verdict = book.restart(event.last_id) if event.inside else book.snapshot(event.last_id)
        else:
            verdict = book.diff(event.first_id, event.last_id, event.prev_id)
        if not event.book:
            self._tell(code, book)
        if verdict.step in (Step.GAP, Step.TOO_OLD):
            self._report(made, self._symbols.names[code], verdict, line)

    def _report(self, made: Made, symbol: str, verdict: Verdict, line: tuple[int, int, bytes, int]) -> None:
        number, offset, data, seq = line
        if verdict.step is Step.GAP:
            self.gaps[symbol] += 1
            error = f"gap in depth of {symbol}: {verdict.why}; book is out of step until the next snapshot"
        else:
            error = f"snapshot of {symbol} is of no use: {verdict.why}; book is out of step until the next snapshot"
        made.bad.append(BadRecord(self._place(number, offset), "crypto.book", error, data, seq))

    def _place(self, line: int, offset: int) -> str:
        return f"{self._file}, line {line}, byte {offset}"

    def decode(self, lines: Lines) -> Made:
        """The rows of some lines, in order, the lines that are no messages, and the gaps that they show."""
        made = Made()
        data = lines.lease.array(np.uint8, lines.size)
        base = address(data)
        state = np.zeros(STATE, np.int64)
        state[AT], state[RECORD], state[LINE] = base, lines.seq, lines.line
        passed = np.zeros(NO_LEVELS + 1, np.int64)
        room = lines.records
        if self._table in _TEXT_A_ROW:
            room = lines.size // _TEXT_A_ROW[self._table]
        rows = Rows(self._pool, self._schema, max(room, _LEAST_ROOM))
        needed = 0

        def flush() -> None:
            nonlocal rows
            if state[ROW]:
                made.batches.append(rows.batch(int(state[ROW]), self._symbols.values()))
            elif needed <= rows.room:
                return
            left = base + lines.size - int(state[AT])
            rows = Rows(self._pool, self._schema, max(left // _TEXT_A_ROW.get(self._table, 90), needed, _LEAST_ROOM))
            state[ROW] = 0

        def text(start: int, stop: int) -> bytes:
            return data[start - base : stop - base].tobytes()

        while True:
            if self._fast:
                status = scan(
                    base + lines.size, state, rows.room, _KINDS[self._table], address(rows.columns), self._symbols.table,
                    self._last_ids, passed, self._unit, address(self._slots),
                )  # fmt: skip
            else:
                status = self._next_line(data, base, lines.size, state)
            if status == DONE:
                break
            if status == NEW_SYMBOL:
                at = int(state[SYMBOL_AT])
                code = self._symbols.code(text(at, at + int(state[SYMBOL_SIZE])).decode())
                if code >= 0:
                    self._room_for(code)
                    continue
                state[LINE_END], status = int(state[AT]) + _line_size(data, int(state[AT]) - base), SLOW
            if status == ROWS_FULL:
                if not state[ROW]:
                    needed = max(2 * rows.room, _line_size(data, int(state[AT]) - base) // 8)
                flush()
                needed = 0
            elif status == BOOK:
                start, stop = int(state[START]), int(state[LINE_END])
                prev = int(state[PREV])
                event = Event("l2", None, None, [], int(state[FIRST]), int(state[LAST]), None if prev < 0 else prev)
                number = int(state[LINE]) - (stop < base + lines.size)
                place = (number, lines.offset + start - base, text(start, stop), int(state[RECORD]) - 1)
                self._judge(made, int(state[BOOK_CODE]), event, place)
            elif status == SLOW:
                start, stop = int(state[AT]), int(state[LINE_END])
                line = text(start, stop)
                place = (int(state[LINE]), lines.offset + start - base, line, int(state[RECORD]))
                try:
                    recv, message = self._message(line)
                    coded = self._coded(message)
                except BadMessage as error:
                    why = f"the recording ends inside this line: {error}" if stop == base + lines.size else str(error)
                    made.bad.append(BadRecord(self._place(*place[:2]), "crypto.decode", why, line, place[3]))
                else:
                    needed = sum(len(event.rows) for _, event in coded)
                    if state[ROW] + needed > rows.room:
                        flush()
                    needed = 0
                    if not coded:
                        made.dropped[f"not in market.{self._table}: {message.kind}"] += 1
                    elif not sum(len(event.rows) for _, event in coded):
                        made.dropped[f"no levels: {message.kind}"] += 1
                    for code, event in coded:
                        self._put(rows, state, recv, code, event)
                        if event.checked:
                            self._judge(made, code, event, place)
                state[RECORD] += 1
                if stop < base + lines.size:
                    stop += 1
                    state[LINE] += 1
                state[AT] = stop
        if state[ROW]:
            made.batches.append(rows.batch(int(state[ROW]), self._symbols.values()))
        for name, count in zip(_NAMES, passed.tolist(), strict=False):
            if count:
                made.dropped[f"not in market.{self._table}: {name}"] += count
        if passed[NO_LEVELS]:
            made.dropped["no levels: depthUpdate"] += int(passed[NO_LEVELS])
        return made

    def _next_line(self, data: Any, base: int, size: int, state: Any) -> int:
        """Step to the next line that is not blank, for the general path: SLOW, or DONE at the end."""
        at, line = int(state[AT]) - base, int(state[LINE])
        while at < size:
            length = _line_size(data, at)
            if data[at : at + length].tobytes().strip(b" \t\r"):
                state[AT], state[LINE], state[LINE_END] = base + at, line, base + at + length
                return SLOW
            at += length + 1
            line += 1
        state[AT], state[LINE] = base + size, line
        return DONE

    def _message(self, line: bytes) -> tuple[int, Message]:
        match = _LINE.fullmatch(line)
        if match is None:
            raise BadMessage("the line does not begin with a receive time in ns and a blank")
        recv = int(match[1])
        if recv >= 1 << 63:
            raise BadMessage(f"the receive time {recv} is beyond the year 2262")
        try:
            return recv, self._read(self._parse(match[2]), self._unit)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadMessage(str(error)) from None
        except RecursionError:
            raise BadMessage("the JSON is nested too deep") from None

    def _coded(self, message: Message) -> list[tuple[int, Event]]:
        """The events for this table with the numbers of their symbols."""
        events = [event for event in message.events if event.table == self._table]
        for event in events:
            if event.symbol is None:
                event.symbol = self._only_symbol()
        coded = [(self._symbols.code(event.symbol or ""), event) for event in events]
        for code, event in coded:
            if code < 0:
                raise BadMessage(
                    f"{event.symbol!r} would be symbol {MOST_SYMBOLS + 1}; a recording holds {MOST_SYMBOLS}"
                )
            self._room_for(code)
        return coded

    def _only_symbol(self) -> str:
        if self._symbol is not None:
            return self._symbol
        if len(self._symbols.names) == 1:
            return self._symbols.names[0]
        if not self._symbols.names and self._first_symbol is not None:
            return self._first_symbol
        many = "no symbol is known yet" if not self._symbols.names else "the recording has several symbols"
        raise BadMessage(f"the snapshot does not say of which symbol it is, and {many}: name it with symbol=")

    def _put(self, rows: Rows, state: Any, recv: int, code: int, event: Event) -> None:
        more: tuple[Any, ...] = ()
        if event.table == "l2":
            more = (event.first_id, event.last_id, event.prev_id or 0, event.is_snapshot, 0)
        stamps = (recv if event.ts_event is None else event.ts_event, recv, int(state[RECORD]))
        if event.rows:
            state[ROW] = rows.put(int(state[ROW]), stamps, code, event.rows, more)


def _line_size(data: Any, start: int) -> int:
    """Bytes of the line at `start`, without its newline."""
    at, step = start, 4096
    while at < len(data):
        found = data[at : at + step].tobytes().find(b"\n")
        if found >= 0:
            return at + found - start
        at, step = at + step, step * 2
    return len(data) - start
