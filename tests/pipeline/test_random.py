"""`generator`: numbers that depend on operation, index and seed alone."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from penstock.pipeline.random import generator

WORD = st.integers(0, 2**64 - 1)


def draw(operation: str, index: int, seed: int = 0) -> list[int]:
    return [int(x) for x in generator(operation, index, seed).integers(0, 2**63, 4)]


@given(st.text(max_size=20), WORD, WORD)
def test_equal_arguments_give_equal_numbers(operation: str, index: int, seed: int) -> None:
    assert draw(operation, index, seed) == draw(operation, index, seed)


@given(st.tuples(st.text(max_size=20), WORD, WORD), st.tuples(st.text(max_size=20), WORD, WORD))
def test_any_other_argument_gives_other_numbers(left: tuple[str, int, int], right: tuple[str, int, int]) -> None:
    assume(left != right)
    assert draw(*left) != draw(*right)


@given(WORD)
def test_index_and_seed_do_not_stand_in_for_each_other(value: int) -> None:
    assume(value != 0)
    assert draw("crop", value, 0) != draw("crop", 0, value)


def test_neighbouring_elements_do_not_overlap_in_a_long_draw() -> None:
    first = generator("noise", 0).bit_generator.random_raw(200_000)
    second = generator("noise", 1).bit_generator.random_raw(200_000)
    assert not np.intersect1d(first, second).size


def test_the_stream_is_philox_keyed_by_a_hash_of_the_name_and_counted_by_the_index() -> None:
    from hashlib import blake2b

    key = np.frombuffer(blake2b(bytes([5] + [0] * 7) + b"flip", digest_size=16, person=b"penstock").digest(), "<u8")
    reference = np.random.Philox(key=key, counter=[0, 0, 9, 0])
    assert list(generator("flip", 9, 5).bit_generator.random_raw(8)) == list(reference.random_raw(8))


def test_a_fresh_process_with_another_hash_seed_draws_the_same() -> None:
    code = "from penstock.pipeline.random import generator; print(generator('shuffle', 3, 1).integers(0, 2**62, 3).tolist())"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, check=True, capture_output=True, text=True
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{generator('shuffle', 3, 1).integers(0, 2**62, 3).tolist()}\n"}


@pytest.mark.parametrize("arguments", [(-1, 0), (2**64, 0), (0, -1), (0, 2**64)])
def test_arguments_outside_64_bits_are_refused(arguments: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"0\.\.2\*\*64-1"):
        generator("x", *arguments)
