"""Output buffers that are reused.

The first write to a fresh page costs a page fault and a clearing of 4 KiB, which on the decoding paths takes longer than
decoding. A `BufferPool` therefore keeps blocks whose last reader has gone: an Arrow buffer made from a `Lease` holds a
reference to it, and when the last such buffer is collected the block returns to the pool by itself. Nobody has to say
"I am done", and a batch that a user keeps is never overwritten.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["ALIGNMENT", "BufferPool", "Lease", "aligned_empty"]

#: Arrow's recommended alignment, also that of a cache line and of AVX-512 loads.
ALIGNMENT = 64


def aligned_empty(nbytes: int) -> npt.NDArray[np.uint8]:
    """Uninitialised bytes whose address is a multiple of `ALIGNMENT`."""
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


class _Block(NamedTuple):
    """Memory, and where it is: numpy takes a microsecond to say."""

    memory: npt.NDArray[np.uint8]
    address: int


class Lease:
    """A block of a pool, writable through `array` until the batch made of it leaves its stage."""

    __slots__ = ("__weakref__", "_address", "_block", "_pool", "nbytes")

    def __init__(self, pool: BufferPool, block: _Block, nbytes: int) -> None:
        self._pool, self._block, self.nbytes = pool, block, nbytes
        self._address = block.address

    def array(self, dtype: npt.DTypeLike, shape: Sequence[int] | int, offset: int = 0) -> npt.NDArray[np.generic]:
        """A writable view of `shape` at `offset` bytes.

        The view does not hold the lease: keep the lease (or a buffer made of it) for as long as the view is used.
        """
        kind = np.dtype(dtype)
        if not isinstance(shape, int):  # asked for first: it is what most are, and asking for a Sequence is slow
            shape = tuple(shape) if isinstance(shape, Sequence) else int(shape)
        size = (shape if isinstance(shape, int) else math.prod(shape)) * kind.itemsize
        if offset < 0 or size < 0 or offset + size > self.nbytes:
            raise ValueError(f"view of {size} bytes at {offset} does not fit a lease of {self.nbytes}")
        view = self._block.memory[offset : offset + size].view(kind)
        return view if isinstance(shape, int) else view.reshape(shape)

    def buffer(self, offset: int, nbytes: int) -> pa.Buffer:
        """An Arrow buffer over part of the block; the block stays leased while the buffer lives."""
        if offset < 0 or nbytes < 0 or offset + nbytes > self.nbytes:
            raise ValueError(f"buffer of {nbytes} bytes at {offset} does not fit a lease of {self.nbytes}")
        return pa.foreign_buffer(self._address + offset, nbytes, base=self)

    def __del__(self) -> None:
        self._pool._give_back(self._block)


class BufferPool:
    """Blocks in power-of-two-and-a-half sizes, returned by the garbage collector and handed out again.

    `keep` bounds the bytes held idle; blocks above it are released to the system. Thread-safe.
    """

    def __init__(self, keep: int = 256 << 20) -> None:
        self._idle: dict[int, list[_Block]] = {}
        self._lock = threading.RLock()  # __del__ may run inside take() on the same thread
        self._keep = keep
        self.idle_bytes = 0
        self.leased_bytes = 0
        self.peak_bytes = 0
        self.fresh_bytes = 0

    def take(self, nbytes: int) -> Lease:
        """A lease of at least `nbytes` (uninitialised, 64-byte aligned)."""
        if nbytes < 0:
            raise ValueError(f"{nbytes=} is negative")
        size = _size_class(nbytes)
        with self._lock:
            block = self._take_idle(size)
            if block is not None:
                size = block.memory.nbytes
                self.idle_bytes -= size
            else:
                self.fresh_bytes += size
            self.leased_bytes += size
            self.peak_bytes = max(self.peak_bytes, self.leased_bytes + self.idle_bytes)
        if block is None:
            memory = aligned_empty(size)
            block = _Block(memory, memory.ctypes.data)
        return Lease(self, block, size)

    def _take_idle(self, size: int) -> _Block | None:
        """An idle block of `size`, or of up to twice that: else sizes that come and go would each keep their own."""
        for _ in range(3):
            stack = self._idle.get(size)
            if stack:
                return stack.pop()
            size = _size_class(size + 1)
        return None

    def _give_back(self, block: _Block) -> None:
        size = block.memory.nbytes
        with self._lock:
            self.leased_bytes -= size
            if self.idle_bytes + size <= self._keep:
                self._idle.setdefault(size, []).append(block)
                self.idle_bytes += size

    def trim(self) -> None:
        """Release every idle block to the system."""
        with self._lock:
            self._idle.clear()
            self.idle_bytes = 0


def _size_class(nbytes: int) -> int:
    """The next of 4096, 6144, 8192, 12288, ...: at most a third of a block is unused."""
    if nbytes <= 4096:
        return 4096
    size = 1 << (nbytes - 1).bit_length()
    return size - (size >> 2) if nbytes <= size - (size >> 2) else size
