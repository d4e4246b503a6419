"""Unaligned little-endian integers out of bytes, for the kernels."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["i32", "i64", "u8", "u16", "u32"]


def _little_endian(result: Any) -> Any:
    """``load(data, offset)``: an unaligned little-endian integer in one load."""

    def load(typing: Any, data: Any, offset: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, args[0])
            kind = ir.IntType(result.bitwidth).as_pointer()
            return builder.load(builder.bitcast(builder.gep(array.data, [args[1]]), kind), align=1)

        return result(data, offset), generate

    return intrinsic(load)


u8, u16, u32, i32, i64 = (
    _little_endian(kind) for kind in (types.uint8, types.uint16, types.uint32, types.int32, types.int64)
)
