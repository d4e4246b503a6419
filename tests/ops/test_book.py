"""Order book features against books kept as dictionaries and against another package's best bid and offer."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from itch_reference import NaiveBooks
from itch_reference import columns as plain_rows
from operator_harness import assert_boundaries_do_not_matter, assert_restorable, assert_same_rows, run_operator
from penstock.demos.market_recording import write_market
from penstock.ops import _book_kernels
from penstock.ops.book import BookFeatures
from penstock.pipeline.context import Context
from penstock.pipeline.errors import GraphError, StateLimitError
from penstock.sources.market.itch import Itch

SCHEMA = Itch("20190130.itch").schema
USD = 10**9
TOPS = ("bid_px", "bid_sz", "ask_px", "ask_sz", "trade_sz", "last_px", "volume")


def decode(path: Path) -> list[pa.RecordBatch]:
    reader = Itch(path, date="2019-01-30").open(Context("itch"))
    batches = [batch for block in reader.blocks() for batch in reader.decode(block).batches]
    reader.close()
    return batches


def l3(rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
    """Rows of (type, locate, side, order, new order, price, size, flags) as market.l3, one ns apart."""
    count = len(rows)
    kinds, locates, sides, orders, news, prices, sizes, flags = zip(*rows, strict=True) if rows else [()] * 8
    times = pa.array(range(count), pa.int64()).cast(SCHEMA.field("ts_event").type)
    names = pa.array([f"S{i}" for i in range(8)])
    arrays = {
        "ts_event": times,
        "ts_recv": times,
        "seq": pa.array(range(count), pa.uint64()),
        "symbol": pa.DictionaryArray.from_arrays(pa.array(locates, pa.int32()), names),
        "msg_type": pa.array([ord(kind) for kind in kinds], pa.uint8()),
        "locate": locates, "side": sides, "order_id": orders, "new_order_id": news, "price": prices, "size": sizes,
        "match_id": [0] * count, "flags": flags,
    }  # fmt: skip
    columns = [
        value if isinstance(value := arrays[field.name], pa.Array) else pa.array(value, field.type) for field in SCHEMA
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def add(order: int, side: int, price: int, size: int, locate: int = 1) -> tuple[Any, ...]:
    return ("A", locate, side, order, 0, price, size, 0)


def on(kind: str, order: int, size: int = 0, *, new: int = 0, price: int = 0, flags: int = 0) -> tuple[Any, ...]:
    return (kind, 1, 0, order, new, price, size, flags)


def tops(*rows: tuple[Any, ...]) -> list[tuple[int, ...]]:
    table = run_operator(BookFeatures(), l3(rows)).rows
    return list(zip(*(table[name].to_pylist() for name in TOPS), strict=True))


def check_against_dictionaries(batches: Sequence[pa.RecordBatch]) -> pa.Table:
    """Every row must be what books kept as dictionaries give; returns the feature rows."""
    result = run_operator(BookFeatures(), batches, schemas=[SCHEMA])
    books, expected = NaiveBooks(), []
    for row in plain_rows(batches, SCHEMA):
        if (top := books.apply(row)) is not None:
            expected.append((row[1], row[3], *top))
    table = result.rows
    got = list(zip(*(table[name].to_pylist() for name in ("seq", "symbol", *TOPS)), strict=True))
    assert got == expected
    assert table.num_rows + sum(result.dropped.values()) == sum(batch.num_rows for batch in batches)
    check_derived(table)
    return table


def check_derived(table: pa.Table) -> None:
    """Spread, mid, microprice and imbalance must follow from prices and sizes, without nulls or NaN."""
    bid, ask = (table[name].to_numpy().astype(np.float64) for name in ("bid_px", "ask_px"))
    bought, sold = (table[name].to_numpy().astype(np.float64) for name in ("bid_sz", "ask_sz"))
    two = (bought > 0) & (sold > 0)
    total = np.where(bought + sold > 0, bought + sold, 1)
    one = (bid + ask) / USD
    np.testing.assert_allclose(table["spread"].to_numpy(), np.where(two, (ask - bid) / USD, 0), rtol=1e-12)
    np.testing.assert_allclose(table["mid"].to_numpy(), np.where(two, one / 2, one), rtol=1e-12)
    weighted = (bid * sold + ask * bought) / total / USD
    np.testing.assert_allclose(table["microprice"].to_numpy(), np.where(two, weighted, one), rtol=1e-12)
    np.testing.assert_allclose(table["imbalance"].to_numpy(), (bought - sold) / total, rtol=1e-6)
    assert not any(column.null_count for column in table.columns)


@pytest.mark.parametrize("name", ["ex20101224.TEST_ITCH_50", "ex20101224.TEST_ITCH_50.prefixed.itch"])
def test_every_top_of_the_real_file_is_that_of_dictionaries(recordings: Callable[[str], Path], name: str) -> None:
    table = check_against_dictionaries(decode(recordings("market/itch50") / name))
    assert table.num_rows == 11_883


def test_every_top_of_a_made_up_day_is_that_of_dictionaries(tmp_path: Path) -> None:
    write_market(tmp_path / "day", messages=6_000, symbols=3)
    table = check_against_dictionaries(decode(tmp_path / "day"))
    spread = table["spread"].to_numpy()
    assert table.num_rows > 5_900
    assert (spread >= 0).all()
    assert table["bid_sz"].to_pylist()[-1] == table["ask_sz"].to_pylist()[-1] == 0


def test_the_best_bid_and_offer_is_that_of_another_package(tmp_path: Path) -> None:
    core = pytest.importorskip("itch_book._core", reason="itch-book is not installed")
    path = tmp_path / "day"
    write_market(path, messages=50_000, symbols=4)
    session = core.Session(["bbo"], 1, [])
    session.feed(path.read_bytes())
    theirs = session.take_bbo()
    table = run_operator(BookFeatures(), decode(path), schemas=[SCHEMA]).rows
    changes: dict[int, list[tuple[int, ...]]] = {}
    for row in zip(table["symbol"].to_pylist(), *(table[name].to_pylist() for name in TOPS[:4]), strict=True):
        locate = 1 + ord(row[0][3]) - 65
        found = changes.setdefault(locate, [(0, 0, 0, 0)])
        if found[-1] != row[1:]:
            found.append(row[1:])
    reported: dict[int, list[tuple[int, ...]]] = {}
    for at in range(len(theirs["seq"])):
        bid, ask = int(theirs["bid_sz"][at]), int(theirs["ask_sz"][at])
        top = (
            int(theirs["bid_px"][at]) * 100_000 if bid else 0,
            bid,
            int(theirs["ask_px"][at]) * 100_000 if ask else 0,
            ask,
        )
        found = reported.setdefault(int(theirs["locate"][at]), [(0, 0, 0, 0)])
        if found[-1] != top:
            found.append(top)
    assert sum(map(len, changes.values())) > 10_000
    assert changes == reported


def test_each_message_does_to_the_book_what_the_rules_say() -> None:
    assert tops(
        add(1, 1, 100, 500),
        add(2, -1, 110, 300),
        add(3, 1, 100, 200),
        on("E", 1, 100),
        on("C", 2, 50, price=111, flags=1),
        on("C", 2, 50, price=112),
        on("X", 3, 150),
        on("U", 2, 80, new=9, price=105),
        on("P", 0, 70, price=103),
        on("Q", 0, 0, price=104),
        on("B", 0),
        on("E", 1, 400),
        on("D", 3),
        on("D", 9),
    ) == [
        (100, 500, 0, 0, 0, 0, 0),
        (100, 500, 110, 300, 0, 0, 0),
        (100, 700, 110, 300, 0, 0, 0),
        (100, 600, 110, 300, 100, 100, 100),
        (100, 600, 110, 250, 50, 111, 150),
        (100, 600, 110, 200, 0, 111, 150),
        (100, 450, 110, 200, 0, 111, 150),
        (100, 450, 105, 80, 0, 111, 150),
        (100, 450, 105, 80, 70, 103, 220),
        (100, 450, 105, 80, 0, 103, 220),
        (100, 50, 105, 80, 400, 100, 620),
        (0, 0, 105, 80, 0, 100, 620),
        (0, 0, 0, 0, 0, 100, 620),
    ]


def test_books_of_symbols_are_apart_and_crossed_books_are_shown() -> None:
    rows = [add(1, 1, 10 * USD, 100), add(2, -1, 9 * USD, 300), add(3, -1, 12 * USD, 5, locate=2)]
    table = run_operator(BookFeatures(), l3(rows)).rows
    assert table["symbol"].to_pylist() == ["S1", "S1", "S2"]
    assert table["spread"].to_pylist() == [0.0, -1.0, 0.0]
    assert table["mid"].to_pylist() == [10.0, 9.5, 12.0]
    assert table["microprice"].to_pylist() == [10.0, 9.75, 12.0]
    assert table["imbalance"].to_pylist() == [1.0, -0.5, -1.0]


def test_messages_without_effect_are_counted_by_reason() -> None:
    rows = [add(1, 1, 100, 500), add(1, 1, 101, 1), add(2, 0, 100, 1), on("D", 7), on("U", 7, 1, new=8), on("B", 0)]
    rows += [("D", 2, 0, 1, 0, 0, 0, 0), add(3, 1, 90, 1), on("U", 3, 1, new=1, price=5), on("E", 1, 9_999)]
    result = run_operator(BookFeatures(), l3(rows))
    assert result.dropped == {
        "order id already in the book": 2,
        "order without a side": 1,
        "order not in the book": 3,
        "changes no book": 1,
    }
    assert result.rows["bid_px"].to_pylist() == [100, 100, 90]
    assert result.rows["trade_sz"].to_pylist() == [0, 0, 9_999]


def test_two_sided_leaves_out_rows_of_one_sided_books() -> None:
    rows = [add(1, 1, 100, 500), on("P", 0, 70, price=3), add(2, -1, 110, 300), on("D", 1)]
    result = run_operator(BookFeatures(two_sided=True), l3(rows))
    assert result.rows["seq"].to_pylist() == [2]
    assert result.rows["volume"].to_pylist() == [70]
    assert result.dropped == {"book has one side only": 3}


ACTIONS = st.tuples(
    st.sampled_from("AAAAFEECXXDUUPQB"),
    st.integers(0, 2),
    st.sampled_from([1, -1]),
    st.integers(0, 14),
    st.integers(0, 14),
    st.integers(1, 12),
    st.integers(0, 9),
    st.integers(0, 1),
)


@settings(max_examples=80, deadline=None)
@given(rows=st.lists(ACTIONS, max_size=120))
def test_any_lives_of_orders_give_the_tops_that_dictionaries_give(rows: list[tuple[Any, ...]]) -> None:
    check_against_dictionaries([l3(rows)])


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(ACTIONS, min_size=1, max_size=60), data=st.data())
def test_cuts_and_snapshots_do_not_change_rows(rows: list[tuple[Any, ...]], data: st.DataObject) -> None:
    assert_boundaries_do_not_matter(BookFeatures(two_sided=data.draw(st.booleans())), l3(rows), data=data)


def test_a_snapshot_at_every_step_of_the_real_file_changes_nothing(recordings: Callable[[str], Path]) -> None:
    batches = decode(recordings("market/itch50") / "ex20101224.TEST_ITCH_50")
    assert_restorable(BookFeatures(), batches, sizes=997)


def test_many_orders_and_levels_outgrow_the_first_tables() -> None:
    generator = np.random.Generator(np.random.Philox(key=1))
    order = generator.permutation(10_000)
    rows = [add(int(i), 1 if i % 2 else -1, int(100_000 + (-i if i % 2 else i)), 1 + int(i) % 7) for i in order]
    rows += [on("D", int(i)) for i in generator.permutation(10_000)]
    result = assert_restorable(BookFeatures(), l3(rows), sizes=7_000)
    bids: dict[int, int] = {}
    best = []
    for kind, _, _, i, _, price, _, _ in rows:
        if i % 2 == 0:
            best.append(None)
            continue
        if kind == "A":
            bids[i] = price
        else:
            del bids[i]
        best.append(None)
        if len(best) % 500 < 2:
            best[-1] = max(bids.values(), default=0)
    got = result.rows["bid_px"].to_pylist()
    checked = [(at, top) for at, top in enumerate(best) if top is not None]
    assert len(checked) > 20
    assert [(at, got[at]) for at, _ in checked] == checked


def test_more_orders_than_allowed_name_the_limit() -> None:
    rows = [add(i, 1, 100, 1) for i in range(5)]
    with pytest.raises(StateLimitError, match="5 orders are live, more than max_orders=4"):
        run_operator(BookFeatures(max_orders=4), l3(rows))
    run_operator(BookFeatures(max_orders=5), l3(rows))


def test_state_stays_within_its_bound() -> None:
    rows = [add(i, 1 if i % 2 else -1, 1 + i, 1, locate=i % 7) for i in range(20_000)]
    spec = BookFeatures(max_orders=20_000)
    result = run_operator(spec, l3(rows))
    assert 0 < result.metrics.state_bytes <= spec.state_bound(SCHEMA)


def test_an_input_that_is_no_market_l3_is_refused_when_the_graph_is_built() -> None:
    with pytest.raises(GraphError, match="column 'msg_type' is missing"):
        BookFeatures().output_schema(SCHEMA.remove(SCHEMA.get_field_index("msg_type")))
    at = SCHEMA.get_field_index("price")
    with pytest.raises(GraphError, match=r"column 'price'; expected int64, got double"):
        BookFeatures().output_schema(SCHEMA.set(at, pa.field("price", pa.float64())))
    with pytest.raises(GraphError, match="at least one order"):
        BookFeatures(max_orders=0)


def test_the_spec_survives_pickling_and_a_restored_book_goes_on() -> None:
    spec = pickle.loads(pickle.dumps(BookFeatures(two_sided=True)))
    assert spec == BookFeatures(two_sided=True)
    first, second = l3([add(1, 1, 100, 5), add(2, -1, 101, 5)]), l3([on("E", 1, 5)])
    one, two = (BookFeatures().open(Context("book"), SCHEMA) for _ in range(2))
    one.process(first)
    two.restore(one.snapshot())
    expected, got = one.process(second), two.process(second)
    assert_same_rows(pa.Table.from_batches(expected), pa.Table.from_batches(got))
    assert got[0]["last_px"].to_pylist() == [100]


def test_no_order_is_lost_when_ids_collide_in_the_table() -> None:
    golden = int(_book_kernels._GOLDEN)
    inverse = pow(golden, -1, 1 << 64)
    ids = [(((1 << 52) * 4095 + i) * inverse) % (1 << 64) for i in range(300)]  # all want the last slot
    rows = [add(i, 1, 100 + n, 1) for n, i in enumerate(ids)]
    rows += [on("D", i) for n, i in enumerate(ids) if n % 3]
    rows += [on("X", i, 1) for n, i in enumerate(ids) if n % 3 == 0]
    result = run_operator(BookFeatures(), l3(rows))
    assert result.dropped == {}
    assert result.rows["bid_sz"].to_pylist()[-1] == 0
