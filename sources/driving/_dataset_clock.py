"""From a device's time since boot to UTC, by the GPS time that a recording holds beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...pipeline.errors import FormatError
from ..storage.stored import within
from ._dataset_times import time_span
from ._npy import NpyArray

__all__ = ["boot_offset", "stamps", "time_range"]

#: GPS seconds from which GPS is so many seconds ahead of UTC (IERS bulletin C), 2006 and later.
_LEAPS = ((820_108_814, 14), (914_803_215, 15), (1_025_136_016, 16), (1_119_744_017, 17), (1_167_264_018, 18))
_GPS_EPOCH = 315_964_800
_WEEK = 604_800
#: Rows of the clocks that are looked at.
_ROWS = 65_536
#: No device runs for longer than this since it booted, and no sum with an offset leaves the year 2262.
_MOST_SECONDS = 1e9


def stamps(seconds: npt.NDArray[Any], offset: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Seconds since boot as ns since 1970, and which of them are times at all."""
    with np.errstate(invalid="ignore"):
        sound = np.abs(seconds) <= _MOST_SECONDS
    ns = np.rint(np.where(sound, seconds, 0.0) * 1e9).astype(np.int64)
    return ns + offset, sound


def boot_offset(folder: str) -> tuple[int, str]:
    """ns from the boot clock to UTC, and the name of what told. Raises FormatError if nothing does."""
    found = _from_frames(folder)
    if found is not None:
        return found, "global_pose/frame_gps_times"
    for receiver in ("live_gnss_ublox", "live_gnss_qcom"):
        found = _from_fixes(within(folder, f"processed_log/GNSS/{receiver}"))
        if found is not None:
            return found, f"processed_log/GNSS/{receiver}"
    raise FormatError(f"{folder} holds no GPS time to set its clock by; give clock_offset_ns=")


def _from_frames(folder: str) -> int | None:
    """The middle one of the differences between GPS and boot time of the video frames."""
    frames = _read(within(folder, "global_pose/frame_times"), 1)
    times = _read(within(folder, "global_pose/frame_gps_times"), 2)
    if frames is None or times is None or not 0 < len(frames) == len(times):
        return None
    boot, sound = stamps(frames[:, 0], 0)
    with np.errstate(invalid="ignore"):
        sound &= (times[:, 0] >= 0) & (times[:, 0] < 8192) & (times[:, 1] >= 0) & (times[:, 1] <= _WEEK)
    if not sound.any():
        return None
    week, of_week = times[sound, 0].astype(np.int64), np.rint(times[sound, 1] * 1e9).astype(np.int64)
    gps = week * _WEEK * 10**9 + of_week
    differences = np.sort(gps - boot[sound])
    leap = next((count for since, count in reversed(_LEAPS) if gps[0] >= since * 10**9), _LEAPS[0][1] - 1)
    return int(differences[len(differences) // 2]) + (_GPS_EPOCH - leap) * 10**9


def _from_fixes(folder: str) -> int | None:
    """The largest difference between a fix's UTC and the boot time it came at: that of the least delay."""
    came, fixes = _read(within(folder, "t"), 1), _read(within(folder, "value"), 6)
    if came is None or fixes is None or not 0 < len(came) == len(fixes):
        return None
    boot, sound = stamps(came[:, 0], 0)
    utc, known = fix_times(fixes[:, 3])
    sound &= known
    return int((utc - boot)[sound].max()) if sound.any() else None


def fix_times(milliseconds: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """UTC in ms as ns, and which are times after 1970."""
    with np.errstate(invalid="ignore"):
        known = (milliseconds > 0) & (milliseconds < 9e12)
    micro = np.rint(np.where(known, milliseconds, 0.0) * 1e3).astype(np.int64)
    return micro * 1000, known


def _read(path: str, width: int) -> npt.NDArray[Any] | None:
    try:
        array = NpyArray(path)
    except (OSError, FormatError):
        return None
    try:
        if array.width != width or array.dtype.kind != "f":
            return None
        return array.read(0, min(array.whole, _ROWS))
    finally:
        array.close()


def time_range(path: str, offset: int) -> dict[str, Any] | None:
    """From the first to the last stamp of an array of times, for `inspect`."""
    array = NpyArray(path)
    try:
        if not array.whole or array.width != 1 or array.dtype.kind != "f":
            return None
        ends = np.concatenate([array.read(0, 1), array.read(array.whole - 1, array.whole)])
    finally:
        array.close()
    ns, sound = stamps(ends[:, 0], offset)
    return time_span(int(ns[0]), int(ns[1])) if sound.all() else None
