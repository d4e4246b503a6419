"""The memory of the last hop: a fixed ring of slots, allocated once.

A slot holds every input tensor of one full batch. Its host side is 64-byte aligned, and page-locked once, not per batch,
where there is a GPU; there it also has a device side, a stream and two events. The host side may be written again only
after the copy to the device has completed, the device side only after the model has read it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .columns import numpy_layout
from .executor import TensorSpec
from .memory import ALIGNMENT, aligned_empty

__all__ = ["Slot", "SlotColumn", "SlotRing"]


class Slot:
    """Memory for one batch: ``host[name]`` is a numpy array ``(rows, *shape)``; ``device[name]`` what the model reads."""

    def __init__(self, index: int, memory: npt.NDArray[np.uint8], tensors: Mapping[str, TensorSpec], rows: int) -> None:
        self.index, self.rows, self.memory = index, rows, memory
        self.host: dict[str, npt.NDArray[Any]] = {}
        self.device: dict[str, Any] = self.host
        self.offsets: dict[str, int] = {}
        offset = 0
        for name, spec in tensors.items():
            dtype = np.dtype(spec.dtype.to_pandas_dtype())
            size = rows * spec.nbytes
            self.offsets[name] = offset
            self.host[name] = memory[offset : offset + size].view(dtype).reshape((rows, *spec.shape))
            offset += -(-size // ALIGNMENT) * ALIGNMENT
        self.stream: Any = None
        self.arrived: Any = None
        self.consumed: Any = None

    def holds(self, name: str, view: npt.NDArray[Any]) -> bool:
        """Whether `view` already is the beginning of this slot's memory for `name`."""
        return bool(view.ctypes.data == self.host[name].ctypes.data and view.flags.c_contiguous)

    def send(self) -> None:
        """Start the copy to the device on this slot's own stream; nothing to do where host and device are one."""
        if self.stream is None:
            return
        import torch

        with torch.cuda.stream(self.stream):
            if self.consumed is not None:
                self.stream.wait_event(self.consumed)
            for name, host in self.host.items():
                self.device[name].copy_(torch.from_numpy(host), non_blocking=True)
            self.arrived.record(self.stream)

    def wait_arrived(self) -> None:
        """Make the current stream wait for the copy."""
        if self.stream is not None:
            import torch

            torch.cuda.current_stream().wait_event(self.arrived)

    def mark_consumed(self) -> None:
        """Record, on the current stream, that the model has read the device side."""
        if self.stream is not None:
            import torch

            self.consumed.record(torch.cuda.current_stream())

    def wait_reusable(self) -> None:
        """Block until the host side may be written again: its copy to the device has completed."""
        if self.arrived is not None:
            self.arrived.synchronize()


class SlotColumn:
    """The part of a slot that one column may be decoded into; stands in for a `Lease`."""

    def __init__(self, slot: Slot, name: str) -> None:
        self._slot, self._start = slot, slot.offsets[name]
        self.nbytes = slot.host[name].nbytes

    def array(self, dtype: npt.DTypeLike, shape: Sequence[int] | int, offset: int = 0) -> npt.NDArray[Any]:
        """A writable view at `offset` bytes into the column."""
        kind = np.dtype(dtype)
        size = int(np.prod(shape)) * kind.itemsize
        if offset < 0 or offset + size > self.nbytes:
            raise ValueError(f"view of {size} bytes at {offset} does not fit a slot column of {self.nbytes}")
        start = self._start + offset
        return self._slot.memory[start : start + size].view(kind).reshape(shape)

    def buffer(self, offset: int, nbytes: int) -> pa.Buffer:
        """An Arrow buffer over the column's memory; valid until the slot is released."""
        if offset < 0 or nbytes < 0 or offset + nbytes > self.nbytes:
            raise ValueError(f"buffer of {nbytes} bytes at {offset} does not fit a slot column of {self.nbytes}")
        return pa.foreign_buffer(self._slot.memory.ctypes.data + self._start + offset, nbytes, base=self._slot)


class SlotRing:
    """`count` slots for batches of `rows` rows on `device`; `acquire` blocks until one is free."""

    def __init__(self, tensors: Mapping[str, TensorSpec], rows: int, count: int, device: str = "cpu") -> None:
        size = sum(-(-rows * spec.nbytes // ALIGNMENT) * ALIGNMENT for spec in tensors.values())
        self.nbytes = size * count
        self.page_locked = device.startswith("cuda")
        self._pinned: Any = None
        memory = self._page_lock(self.nbytes) if self.page_locked else aligned_empty(self.nbytes)
        memory.fill(0)  # the first touch of a page costs more than decoding into it: pay before the stream begins
        self.tensors = dict(tensors)
        self.slots = [Slot(i, memory[i * size : (i + 1) * size], tensors, rows) for i in range(count)]
        if self.page_locked:
            for slot in self.slots:
                _give_device_side(slot, device)
        self._free = deque(self.slots)
        self._changed = threading.Condition()
        self._held: Slot | None = None
        self._filler = 0

    def _page_lock(self, nbytes: int) -> npt.NDArray[np.uint8]:
        import torch

        self._pinned = torch.empty(nbytes + ALIGNMENT, dtype=torch.uint8, pin_memory=True)
        raw: npt.NDArray[np.uint8] = self._pinned.numpy()
        start = -raw.ctypes.data % ALIGNMENT
        return raw[start : start + nbytes]

    def reserve(self, stop: threading.Event) -> Slot | None:
        """The slot being filled; takes a free one if there is none yet. None if `stop` is set while waiting.

        `fill` ends the reservation. Raises RuntimeError if another thread is filling it: they would share its memory.
        """
        thread = threading.get_ident()
        if self._held is not None and self._filler != thread:
            raise RuntimeError("two threads are filling one slot")
        if self._held is None:
            self._filler = thread
            with self._changed:
                while not self._free:
                    if stop.is_set():
                        return None
                    self._changed.wait(0.1)
                self._held = self._free.popleft()
            self._held.wait_reusable()
        return self._held

    def fill(self) -> Slot:
        """End the reservation: the slot goes to the consumer."""
        slot, self._held = self._held, None
        if slot is None:
            raise RuntimeError("no slot is reserved")
        return slot

    def release(self, slot: Slot) -> None:
        """The consumer has read the slot (on a GPU: has queued its reads)."""
        slot.mark_consumed()
        with self._changed:
            self._free.append(slot)
            self._changed.notify()

    def close(self) -> None:
        """Let go of the memory; what still refers to a slot keeps that slot alive."""
        self.slots.clear()
        self._free.clear()
        self._pinned = None

    def allocate(self, column: str, kind: pa.DataType, rows: int, stop: threading.Event) -> SlotColumn | None:
        """Memory for an operator that can write `column` in place; None if it does not fit this ring."""
        spec = self.tensors.get(column)
        if spec is None or spec.arrow != kind or rows > self.slots[0].rows or numpy_layout(kind) is None:
            return None
        slot = self.reserve(stop)
        return None if slot is None else SlotColumn(slot, column)


def _give_device_side(slot: Slot, device: str) -> None:
    import torch

    slot.device = {name: torch.from_numpy(host).to(device) for name, host in slot.host.items()}
    slot.stream = torch.cuda.Stream(device)
    slot.arrived = torch.cuda.Event()
    slot.consumed = torch.cuda.Event()
