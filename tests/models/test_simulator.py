"""The accelerator simulator on a clock that jumps."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pyarrow as pa
import pytest
from penstock.models import Simulator, TensorSpec
from penstock.pipeline.clock import SyntheticClock
from penstock.pipeline.context import Context
from penstock.pipeline.errors import GraphError, RunError

IMAGE = {"image": TensorSpec(pa.uint8(), (100, 90))}


def test_a_batch_takes_the_service_time_whatever_is_in_it() -> None:
    clock = SyntheticClock()
    executor = Simulator(service_time="5ms", inputs=IMAGE).open(Context("infer", clock=clock), 4)
    for _ in range(3):
        executor.run({"image": np.zeros((4, 100, 90), np.uint8)})
    assert clock.monotonic_ns() == 15_000_000
    assert executor.report() == {
        "model": "simulator",
        "device": "simulator",
        "rows": 4,
        "service_time_ns": 5_000_000,
        "batches": 3,
    }


def test_what_the_checksum_took_is_part_of_the_service_time() -> None:
    class Slow(SyntheticClock):
        def monotonic_ns(self) -> int:
            self.wait_ns(1_000_000, threading.Event())  # every look at this clock takes a millisecond
            return super().monotonic_ns()

    clock = Slow()
    Simulator(service_time="5ms", inputs=IMAGE).open(Context("infer", clock=clock), 1).run(
        {"image": np.zeros((1, 100, 90), np.uint8)}
    )
    assert clock.now_ns() == 1_000_000 + 5_000_000


def test_outputs_follow_from_each_row_alone() -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (6, 100, 90), np.uint8)
    spec = Simulator(
        service_time=0,
        inputs={**IMAGE, "speed": TensorSpec(pa.float32())},
        outputs={"score": TensorSpec(pa.float64(), (2,)), "label": TensorSpec(pa.int8())},
    )
    speed = np.arange(6, dtype=np.float32)
    got = spec.open(Context("infer"), 6).run({"image": images, "speed": speed})
    # 9,000 elements: every third enters
    expected = images.reshape(6, -1)[:, ::3].astype(np.float64).mean(1) + speed
    np.testing.assert_allclose(got["score"], expected[:, None] + [0, 1], rtol=1e-15)
    np.testing.assert_array_equal(got["label"], np.floor(expected) % 128)
    order = np.array([3, 1, 5, 0, 2, 4])
    again = spec.open(Context("infer"), 6).run({"image": images[order], "speed": speed[order]})
    np.testing.assert_array_equal(again["score"], got["score"][order])


def test_a_run_that_is_being_abandoned_does_not_wait() -> None:
    stop = threading.Event()
    stop.set()
    executor = Simulator(service_time="1h", inputs=IMAGE).open(Context("infer", stop=stop), 1)
    assert set(executor.run({"image": np.zeros((1, 100, 90), np.uint8)})) == {"score"}


def test_wrong_inputs_are_errors_that_say_which() -> None:
    executor = Simulator(service_time=0, inputs=IMAGE).open(Context("infer"), 2)
    with pytest.raises(RunError, match="'image' is missing"):
        executor.run({})
    with pytest.raises(RunError, match=r"expected \(2, 100, 90\)"):
        executor.run({"image": np.zeros((1, 100, 90), np.uint8)})
    with pytest.raises(GraphError, match="fixed-width"):
        Simulator(service_time=0, inputs={"name": TensorSpec(pa.string())})
    with pytest.raises(ValueError, match="not a duration"):
        Simulator(service_time="soon", inputs=IMAGE)


def test_it_pickles() -> None:
    spec = Simulator(service_time="2ms", inputs=IMAGE)
    assert pickle.loads(pickle.dumps(spec)) == spec
