"""JPEG to RGB with libjpeg-turbo (through simplejpeg), at the smallest scale that is large enough and fast.

libjpeg-turbo can leave out the high frequencies and give n/8 of the size. Only 1/8, 1/4, 1/2 and 1 have vector code:
measured on 960x540, 1/2 takes 0.73 of the time of a full decode, but 3/8 0.9, 5/8 1.6 and 7/8 2.5. So those four are used
and the resize does the rest. The accurate integer DCT is used at every scale: it gives the same bits on every processor,
and the fast one saved less than the noise of the measurement.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg

from ._jpeg_kernels import progressive_scans

__all__ = ["MAX_SCANS", "ImageError", "check_header", "decode_jpeg", "decoded_size"]

#: More scans than any encoder writes (ten is usual); libjpeg-turbo's own fuzzers stop at 500.
MAX_SCANS = 100
#: Above this, the scratch memory of a thread is not kept for the next image.
_KEEP_SCRATCH = 64 << 20
#: Passed as `min_factor` where the whole image is wanted; else simplejpeg reads a 7x7 image at 7/8.
_NO_SCALING = 1e9

_scratch = threading.local()


class ImageError(Exception):
    """An image that cannot be decoded; the text says why."""


def check_header(data: npt.NDArray[np.uint8], max_pixels: int) -> tuple[int, int]:
    """Height and width of a JPEG. Raises ImageError before anything of its size has been allocated."""
    if len(data) < 4 or data[0] != 0xFF or data[1] != 0xD8:
        raise ImageError(f"not a JPEG: {len(data)} bytes that do not start with ff d8")
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except (ValueError, KeyError) as error:
        raise ImageError(f"JPEG header: {error}") from None
    height, width = int(height), int(width)
    if colours in ("CMYK", "YCCK"):
        raise ImageError(f"{colours} JPEG: only grey, YCbCr and RGB are decoded; convert it to RGB where it is written")
    if height <= 0 or width <= 0:
        raise ImageError(f"JPEG header says {width}x{height} pixels")
    if height * width > max_pixels:
        raise ImageError(f"JPEG header says {width}x{height} pixels, more than max_pixels={max_pixels}")
    if (scans := int(progressive_scans(data))) > MAX_SCANS:
        raise ImageError(f"progressive JPEG with {scans} scans, more than {MAX_SCANS}")
    return height, width


def decoded_size(height: int, width: int, least_height: int, least_width: int) -> tuple[int, int]:
    """The size at which to decode so that neither side falls below what is wanted: an eighth, quarter, half or all."""
    for eighths in (1, 2, 4):
        scaled = -(-height * eighths // 8), -(-width * eighths // 8)
        if scaled[0] >= least_height and scaled[1] >= least_width:
            return scaled
    return height, width


def decode_jpeg(
    data: npt.NDArray[np.uint8],
    size: tuple[int, int],
    scaled: tuple[int, int],
    out: npt.NDArray[np.uint8] | None = None,
) -> npt.NDArray[Any]:
    """Decode a JPEG of `size` at the size `scaled` into `out` (contiguous) or scratch memory of this thread.

    Strict: whatever libjpeg-turbo would only warn of (a truncated scan filled with grey, bytes that belong nowhere)
    raises ImageError. Releases the GIL.
    """
    height, width = scaled
    buffer = out if out is not None else _scratch_bytes(height * width * 3)
    whole = scaled == size
    try:
        pixels: npt.NDArray[Any] = simplejpeg.decode_jpeg(
            data,
            "RGB",
            fastdct=False,
            fastupsample=False,
            min_height=0 if whole else height,
            min_width=0 if whole else width,
            min_factor=_NO_SCALING if whole else 1,
            buffer=buffer,
            strict=True,
        )
    except ValueError as error:
        raise ImageError(f"JPEG: {error}") from None
    return pixels


def _scratch_bytes(nbytes: int) -> npt.NDArray[np.uint8]:
    if nbytes > _KEEP_SCRATCH:
        return np.empty(nbytes, np.uint8)
    held: npt.NDArray[np.uint8] | None = getattr(_scratch, "bytes", None)
    if held is None or len(held) < nbytes:
        held = _scratch.bytes = np.empty(nbytes, np.uint8)
    return held
