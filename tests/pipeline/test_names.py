"""Where names are taken, one name is one name and not its letters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from penstock import ops, sources
from penstock.pipeline.names import names_in
from penstock.sources.text.ndjson import Ndjson
from streams import recording, source

TAKERS: dict[str, Callable[[Any], Any]] = {
    "live_crypto": lambda given: sources.live_crypto("okx", given),
    "CryptoMessages": lambda given: sources.CryptoMessages("okx", symbols=given),
    "live_can": lambda given: sources.live_can("tcp://127.0.0.1:9", interfaces=given),
    "CanLines": lambda given: sources.CanLines(interfaces=given),
    "Candump": lambda given: sources.Candump("log", interfaces=given),
    "ParquetTicks": lambda given: sources.ParquetTicks("ticks.parquet", columns=given),
    "ActionSequence": lambda given: ops.ActionSequence(vocabulary=given, key=given),
}


@pytest.mark.parametrize("taker", TAKERS)
def test_one_name_is_the_same_as_a_list_of_it(taker: str) -> None:
    make = TAKERS[taker]
    assert make("price") == make(["price"])


def test_one_frame_of_a_message_is_one_name() -> None:
    codec = sources.JsonMessages(Ndjson("", columns={"a": "a:int64"}))
    assert sources.Zmq("tcp://127.0.0.1:9", codec, frames="payload").frames == ("payload",)


def test_one_column_of_a_function_is_one_name() -> None:
    rows = source(recording(1, 50), 50)
    doubled = rows.map(lambda price: price * 2, inputs="price", outputs={"twice": pa.float64()})
    kept = doubled.filter(lambda price: price > 0, inputs="price")
    assert "twice" in kept.schema.names
    torch = pytest.importorskip("torch")
    (first, *_) = iter(rows.to_torch("price"))
    assert list(first) == ["price"] and isinstance(first["price"], torch.Tensor)


def test_names_are_those_given() -> None:
    assert names_in("ab") == ("ab",)
    assert names_in(["a", "b"]) == names_in(name for name in "ab") == ("a", "b")
