"""Machine words for the JSON scanner: unaligned loads and stores at an address, byte masks, 128-bit products.

Numba has no unaligned loads and no byte-mask instruction, and with them the scanner walks text 32 bytes at a time instead
of one. Everything here works on plain int64 addresses and checks nothing: callers own the bounds (`PADDING` readable
bytes behind every input, and as many writable ones behind every output).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = [
    "PADDING",
    "double_of_bits",
    "high_product",
    "leading_zeros",
    "load8",
    "load16",
    "load64",
    "load_i16",
    "load_i32",
    "load_i64",
    "store8",
    "store16",
    "store32",
    "store64",
    "store_f32",
    "store_f64",
    "store_move32",
    "string_stops",
    "trailing_zeros",
]

#: Bytes that may be read behind the end of an input and written behind the end of an output.
PADDING = 192

_Function = Callable[..., Any]


def _intrinsic(function: _Function) -> _Function:
    made: _Function = intrinsic(function)
    return made


_WIDE = ir.VectorType(ir.IntType(8), 32)


def _pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _loader(bits: int, result: Any, doc: str, *, signed: bool = False) -> _Function:
    def load(typingctx: Any, address: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            value = builder.load(_pointer(builder, args[0], ir.IntType(bits)), align=1)
            if bits == 64:
                return value
            return builder.sext(value, ir.IntType(64)) if signed else builder.zext(value, ir.IntType(64))

        return result(types.int64), emit

    load.__doc__ = doc
    return _intrinsic(load)


load8 = _loader(8, types.int64, "The byte at an address, 0 to 255.")
load16 = _loader(16, types.int64, "Two little-endian bytes at an address.")
load64 = _loader(64, types.uint64, "Eight little-endian bytes at an address.")
load_i16 = _loader(16, types.int64, "The int16 at an address.", signed=True)
load_i32 = _loader(32, types.int64, "The int32 at an address.", signed=True)
load_i64 = _loader(64, types.int64, "The int64 at an address.")


def _storer(kind: Any, value_type: Any, narrow: str | None) -> _Function:
    def store(typingctx: Any, address: Any, value: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            raw = args[1] if narrow is None else getattr(builder, narrow)(args[1], kind)
            builder.store(raw, _pointer(builder, args[0], kind), align=1)
            return context.get_dummy_value()

        return types.void(types.int64, value_type), emit

    return _intrinsic(store)


store8 = _storer(ir.IntType(8), types.int64, "trunc")
store16 = _storer(ir.IntType(16), types.int64, "trunc")
store32 = _storer(ir.IntType(32), types.int64, "trunc")
store64 = _storer(ir.IntType(64), types.int64, None)
store_f32 = _storer(ir.FloatType(), types.float64, "fptrunc")
store_f64 = _storer(ir.DoubleType(), types.float64, None)


@_intrinsic
def store_move32(typingctx: Any, target: Any, source: Any) -> Any:
    """Copy 32 bytes from one address to another."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(_pointer(builder, args[1], _WIDE), align=1)
        builder.store(value, _pointer(builder, args[0], _WIDE), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


@_intrinsic
def string_stops(typingctx: Any, address: Any, limit: Any) -> Any:
    """A 32-bit mask of the bytes that end a plain run of string text: quote, backslash, control, and bytes >= `limit`.

    `limit` is 256 where text is known to be UTF-8 and 128 where every byte outside ASCII must stop.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        text = builder.load(_pointer(builder, args[0], _WIDE), align=1)

        def splat(value: int) -> Any:
            return ir.Constant(_WIDE, [value] * 32)

        stop = builder.icmp_unsigned("==", text, splat(0x22))
        stop = builder.or_(stop, builder.icmp_unsigned("==", text, splat(0x5C)))
        stop = builder.or_(stop, builder.icmp_unsigned("<", text, splat(0x20)))
        high = builder.bitcast(builder.icmp_signed("<", text, splat(0)), ir.IntType(32))
        strict = builder.icmp_signed("<", args[1], ir.Constant(ir.IntType(64), 256))
        high = builder.select(strict, high, ir.Constant(ir.IntType(32), 0))
        return builder.zext(builder.or_(builder.bitcast(stop, ir.IntType(32)), high), ir.IntType(64))

    return types.int64(types.int64, types.int64), emit


@_intrinsic
def trailing_zeros(typingctx: Any, value: Any) -> Any:
    """Zero bits below the lowest one; 64 for 0."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.int64), emit


@_intrinsic
def leading_zeros(typingctx: Any, value: Any) -> Any:
    """Zero bits above the highest one; 64 for 0."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), emit


@_intrinsic
def high_product(typingctx: Any, a: Any, b: Any) -> Any:
    """The upper 64 bits of the 128-bit product of two uint64."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), emit


@_intrinsic
def double_of_bits(typingctx: Any, bits: Any) -> Any:
    """The float64 with these bits."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.uint64), emit
