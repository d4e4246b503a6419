"""`BufferPool`: memory is handed out again only after its last reader has gone."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.memory import ALIGNMENT, BufferPool, Lease, aligned_empty


def filled(pool: BufferPool, nbytes: int, mark: int) -> pa.Buffer:
    """A buffer of `nbytes` bytes `mark`, which alone holds its lease."""
    lease = pool.take(nbytes)
    lease.array(np.uint8, nbytes)[:] = mark
    return lease.buffer(0, nbytes)


def test_a_block_returns_when_the_last_buffer_over_it_has_gone() -> None:
    pool = BufferPool()
    lease = pool.take(10_000)
    address = lease.array(np.uint8, 1).ctypes.data
    first, second = lease.buffer(0, 100), lease.buffer(200, 100)
    del lease, first
    assert pool.leased_bytes > 0
    assert pool.take(10_000).array(np.uint8, 1).ctypes.data != address
    del second
    assert pool.leased_bytes == 0
    fresh = pool.fresh_bytes
    again = [pool.take(10_000), pool.take(10_000)]
    assert address in {lease.array(np.uint8, 1).ctypes.data for lease in again}
    assert pool.fresh_bytes == fresh


def test_arrays_slices_and_batches_keep_their_block() -> None:
    pool = BufferPool()
    array = pa.Array.from_buffers(pa.int64(), 100, [None, filled(pool, 800, 7)])
    tail = pa.record_batch([array], names=["x"]).slice(90).column(0)
    del array
    gc.collect()
    for mark in range(20):
        filled(pool, 800, mark)
    assert tail.to_pylist() == [int.from_bytes(bytes([7] * 8), "little")] * 10


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 5)), max_size=60))
def test_what_is_kept_is_never_overwritten(steps: list[tuple[int, int]]) -> None:
    pool = BufferPool(keep=40_000)
    kept: list[tuple[pa.Buffer, int]] = []
    for number, (nbytes, action) in enumerate(steps):
        mark = number % 251
        kept.append((filled(pool, nbytes, mark), mark))
        if action < 3 and kept:
            del kept[action % len(kept)]
        assert pool.idle_bytes <= 40_000
        assert pool.leased_bytes >= sum(buffer.size for buffer, _ in kept)
        assert pool.peak_bytes >= pool.leased_bytes + pool.idle_bytes
    assert [bytes(buffer) == bytes([mark]) * buffer.size for buffer, mark in kept] == [True] * len(kept)
    kept.clear()
    assert pool.leased_bytes == 0


def test_threads_that_take_keep_and_drop_see_only_their_own_bytes() -> None:
    pool = BufferPool()
    failures: list[str] = []
    start = threading.Barrier(8)

    def work(thread: int) -> None:
        kept: list[tuple[pa.Buffer, int]] = []
        start.wait()
        for step in range(400):
            mark = (thread * 31 + step) % 251
            kept.append((filled(pool, 64 + 997 * (step % 13), mark), mark))
            if len(kept) > 5:
                buffer, expected = kept.pop(step % 5)
                data = np.frombuffer(buffer, np.uint8)
                if not (data == expected).all():
                    failures.append(f"thread {thread}, step {step}")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    gc.collect()
    assert pool.leased_bytes == 0
    assert pool.idle_bytes == pool.fresh_bytes


def test_buffers_made_on_one_thread_may_be_dropped_on_another() -> None:
    pool = BufferPool()
    buffers = [filled(pool, 5_000, mark) for mark in range(20)]
    dropper = threading.Thread(target=buffers.clear)
    dropper.start()
    dropper.join()
    assert pool.leased_bytes == 0


def test_idle_memory_is_bounded_and_can_be_let_go() -> None:
    pool = BufferPool(keep=10_000)
    leases = [pool.take(4096) for _ in range(10)]
    leases.clear()
    assert pool.idle_bytes == 8192
    pool.trim()
    assert pool.idle_bytes == 0


@given(st.integers(0, 1 << 22))
def test_blocks_are_aligned_and_at_most_half_as_large_again_as_asked(nbytes: int) -> None:
    lease = BufferPool().take(nbytes)
    assert nbytes <= lease.nbytes <= max(4096, nbytes * 3 // 2 + 1)
    assert lease.array(np.uint8, 0).ctypes.data % ALIGNMENT == 0
    assert lease.buffer(0, 0).address % ALIGNMENT == 0


@given(st.integers(0, 10_000))
def test_aligned_empty_is_aligned_and_exact(nbytes: int) -> None:
    block = aligned_empty(nbytes)
    assert block.nbytes == nbytes
    assert nbytes == 0 or block.ctypes.data % ALIGNMENT == 0


@pytest.mark.parametrize(("offset", "nbytes"), [(-1, 1), (0, 4097), (4096, 1), (5000, 0), (0, -1)])
def test_a_lease_gives_no_view_outside_itself(offset: int, nbytes: int) -> None:
    lease: Lease = BufferPool().take(4096)
    with pytest.raises(ValueError, match="does not fit"):
        lease.buffer(offset, nbytes)
    if nbytes > 0:
        with pytest.raises(ValueError, match="does not fit"):
            lease.array(np.uint8, nbytes, offset)


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        BufferPool().take(-1)
