"""The table that CAN logs become."""

from __future__ import annotations

import pyarrow as pa

from .cdr import CAN_FRAME

__all__ = ["can_fields"]


def can_fields(fd: bool) -> list[tuple[str, pa.DataType]]:
    """The columns of `can.frame`, with 64 bytes of data for CAN FD or 8."""
    return [(name, pa.binary(64) if name == "data" and fd else kind) for name, kind in CAN_FRAME]
