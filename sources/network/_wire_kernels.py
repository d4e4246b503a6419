"""Unaligned loads of either byte order from bytes, one instruction each, for kernels that walk packets.

None checks a bound: whoever calls knows that the bytes are there, or leaves `PAD` bytes behind the data.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ...pipeline.jit import kernel

__all__ = ["be16", "be32", "be64", "le16", "le32", "le64", "u16", "u32", "u64"]


def _load(bits: int, *, swap: bool) -> Any:
    result: Any = {16: types.uint16, 32: types.uint32, 64: types.uint64}[bits]

    def load(typing: Any, data: Any, offset: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, args[0])
            pointer = builder.bitcast(builder.gep(array.data, [args[1]]), ir.IntType(bits).as_pointer())
            value = builder.load(pointer, align=1)
            return builder.bswap(value) if swap else value

        return result(data, offset), generate

    return intrinsic(load)


be16, be32, be64 = _load(16, swap=True), _load(32, swap=True), _load(64, swap=True)
le16, le32, le64 = _load(16, swap=False), _load(32, swap=False), _load(64, swap=False)


@kernel
def u16(data: Any, at: Any, big: Any) -> Any:
    return be16(data, at) if big else le16(data, at)


@kernel
def u32(data: Any, at: Any, big: Any) -> Any:
    return be32(data, at) if big else le32(data, at)


@kernel
def u64(data: Any, at: Any, big: Any) -> Any:
    return be64(data, at) if big else le64(data, at)
