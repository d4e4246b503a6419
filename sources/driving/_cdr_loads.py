"""Numbers at any byte of a buffer as single loads.

numba knows no unaligned load: putting a number together from bytes costs a bounds adjustment and a shift for each of them,
which on point clouds is most of the time. These read little endian (the order of every machine that runs numba), unless
`big` is true, and check nothing: the caller knows that the bytes are there.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

__all__ = ["u16", "u32", "u64"]


def _unaligned(bits: int) -> Any:
    def load(typing_context: Any, b: Any, p: Any, big: Any) -> Any:
        if not isinstance(b, types.Array) or b.ndim != 1 or b.layout != "C" or b.dtype != types.uint8:
            return None
        word, wide = ir.IntType(bits), ir.IntType(64)

        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            place = builder.gep(array.data, [arguments[1]], source_etype=ir.IntType(8))
            value = builder.load(place, typ=word, align=1)
            value = builder.select(arguments[2], builder.bswap(value), value)
            return value if bits == 64 else builder.zext(value, wide)

        return types.int64(b, types.int64, types.boolean), code

    return intrinsic(load)


#: ``u16(b, p, big)``: two bytes as int64.
u16 = _unaligned(16)
#: ``u32(b, p, big)``: four bytes as a non-negative int64.
u32 = _unaligned(32)
#: ``u64(b, p, big)``: eight bytes as the int64 of the same bits.
u64 = _unaligned(64)
