"""NumPy .npy files by rows, without numpy's own reader: the header is checked before anything is allocated, nothing is
ever unpickled, and a block of rows is read where it lies, also where the array is stored column by column.
"""

from __future__ import annotations

import ast
import math
import re
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from ...pipeline.errors import FormatError
from ..storage.stored import PathLike, open_stored

__all__ = ["NpyArray", "npy_header"]

_MAGIC = b"\x93NUMPY"
_MOST_HEADER = 1 << 14
_DTYPE = re.compile(r"[<>=|]?(?:[iu][1248]|f[248]|b1|S[1-9][0-9]{0,3})")


def npy_header(head: bytes) -> tuple[np.dtype[Any], tuple[int, ...], bool, int]:
    """``(dtype, shape, fortran_order, offset of the data)`` from the first bytes of a file. Raises ValueError."""
    if head[:6] != _MAGIC:
        raise ValueError(f"it begins with {head[:6].hex(' ')}, not with the magic of a .npy file")
    if len(head) < 12:
        raise ValueError("the file ends inside its header")
    size, start = (struct.unpack_from("<H", head, 8)[0], 10) if head[6] == 1 else (
        struct.unpack_from("<I", head, 8)[0], 12
    )  # fmt: skip
    if head[6] not in (1, 2, 3):
        raise ValueError(f"version {head[6]} of the .npy format is not known")
    if size > _MOST_HEADER or start + size > len(head):
        raise ValueError(f"its header of {size} bytes is longer than the file or than {_MOST_HEADER} bytes")
    try:
        found = ast.literal_eval(head[start : start + size].decode("latin-1").strip())
        kind, order, shape = found["descr"], found["fortran_order"], found["shape"]
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError):
        raise ValueError("its header is no dictionary with descr, fortran_order and shape") from None
    if not isinstance(kind, str) or not _DTYPE.fullmatch(kind):
        raise ValueError(f"its values are {str(kind)[:60]!r}; numbers and byte strings are read, objects never")
    if not isinstance(shape, tuple) or not all(type(n) is int and 0 <= n < 1 << 48 for n in shape):
        raise ValueError(f"its shape is {str(shape)[:60]}")
    if not isinstance(order, bool):
        raise ValueError(f"its fortran_order is {str(order)[:20]}")
    return np.dtype(kind), shape, order, start + size


class NpyArray:
    """An open .npy file of one or two dimensions. Thread-safe.

    `rows` is what the header says, `whole` how many rows the file holds completely, `width` the items of a row.
    Raises FormatError for another kind of file, OSError if there is none.
    """

    def __init__(self, path: PathLike) -> None:
        self._stored = open_stored(path)
        self.path = self._stored.path
        try:
            self.dtype, shape, self._columns_first, self._offset = npy_header(self._stored.read(0, _MOST_HEADER + 12))
            if not 1 <= len(shape) <= 2:
                raise ValueError(f"it has {len(shape)} dimensions, not one or two")
        except ValueError as error:
            self.close()
            raise FormatError(f"{self.path}: {error}") from None
        except BaseException:
            self.close()
            raise
        self.rows, self.width = shape[0], shape[1] if len(shape) > 1 else 1
        self._columns_first = self._columns_first and self.width > 1
        held = max(0, self._stored.size - self._offset) // self.dtype.itemsize
        if self._columns_first:
            held = max(0, held - (self.width - 1) * self.rows)
        elif self.width:
            held //= self.width
        self.whole = min(self.rows, held)
        if self.width > 4096:
            self.close()
            raise FormatError(f"{self.path}: {self.width} values a row are more than 4096")

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows ``start:stop`` as a new array ``(rows, width)`` in the byte order of this machine.

        Byte strings come as uint8 ``(rows, length of one)``. Raises FormatError if the file has become shorter.
        """
        if not 0 <= start <= stop <= self.whole:
            raise ValueError(f"rows {start}:{stop} are not within {self.whole}")
        count = stop - start
        raw = np.empty(math.prod((self.width, count, self.dtype.itemsize)), np.uint8)
        piece = count * self.dtype.itemsize
        if self._columns_first:
            for column in range(self.width):
                self._fill((column * self.rows + start), raw[column * piece : (column + 1) * piece])
        else:
            self._fill(start * self.width, raw)
        values = raw.view(self.dtype).astype(self.dtype.newbyteorder("="), copy=False)
        if self._columns_first:
            values = np.ascontiguousarray(values.reshape(self.width, count).T)
        if self.dtype.kind == "S":
            return values.view(np.uint8).reshape(count, self.width * self.dtype.itemsize)
        return values.reshape(count, self.width)

    def _fill(self, item: int, view: npt.NDArray[np.uint8]) -> None:
        offset = self._offset + item * self.dtype.itemsize
        if view.size and self._stored.read_into(offset, memoryview(view)) != view.size:  # type: ignore[arg-type]
            raise FormatError(f"{self.path}: {view.size} bytes at {offset} are not there any more")

    def close(self) -> None:
        """Release the file."""
        self._stored.close()
