"""A straight road with traffic, as a camera sees it and as a radar measures it, at any time.

Everything is a function of the seed and the time, so camera frames and radar scans taken at different instants show the
same world. x is forward, y left, metres; the ego vehicle drives at a constant 25 m/s in the middle lane.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..pipeline.random import generator

__all__ = ["EGO_SPEED", "RADAR_POINT", "Camera", "Traffic", "draws"]

EGO_SPEED = 25.0
_LANE, _CAMERA_HEIGHT, _RANGE = 3.5, 1.4, 130.0
_GUARD_RAIL = 8.0

#: A radar point as the sensor writes it: 30 bytes of fields in steps of 32.
RADAR_POINT = np.dtype(
    {
        "names": ["x", "y", "z", "vr", "rcs", "snr", "track_id", "flags"],
        "formats": ["<f4", "<f4", "<f4", "<f4", "<f4", "<f4", "<u4", "<u2"],
        "offsets": [0, 4, 8, 12, 16, 20, 24, 28],
        "itemsize": 32,
    }
)


def draws(seed: int, stream: int, index: int, count: int) -> npt.NDArray[np.float64]:
    """`count` numbers in [0, 1) that depend on nothing but the arguments."""
    return generator(f"demo drive {stream}", index, seed).random(count)


class Traffic:
    """Cars on three lanes, each at its own speed; one that leaves the scene comes in again at the other end."""

    def __init__(self, seed: int, cars: int = 7) -> None:
        u = draws(seed, 1, 0, 4 * cars).reshape(4, cars)
        self.count = cars
        self._start = (np.arange(cars) + 0.5 * u[0]) * (_RANGE / cars)
        self._speed = -6.0 + 12.0 * u[1]
        self._y = (np.arange(cars) % 3 - 1) * _LANE + 0.3 * (u[2] - 0.5)
        self.colors = (40 + 200 * draws(seed, 2, 0, 3 * cars)).reshape(cars, 3).astype(np.uint8)

    def at(self, seconds: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Distance ahead of each car's rear, its lateral position, and its speed against ours."""
        return 6.0 + (self._start + self._speed * seconds) % _RANGE, self._y, self._speed

    def scan(self, seconds: float, noise: npt.NDArray[np.float64]) -> npt.NDArray[np.void]:
        """The radar points of the scene: up to 4 a car, and the guard rails. `noise` is 160 draws."""
        x, y, speed = self.at(seconds)
        u = noise[:128].reshape(32, 4)
        rows = []
        for car in range(self.count):
            for echo in range(1 + int(3.99 * u[car, 0])):
                dx, dy, dz, strength = u[8 + (car * 3 + echo) % 24]
                at = (x[car] + 0.3 * dx, y[car] + 1.6 * (dy - 0.5), 0.4 + 0.5 * dz)
                rows.append((*at, speed[car], 8.0 + 6.0 * strength, float(car), 1))
        rail = noise[128:160].reshape(2, 16)
        for i in range(16):
            ahead = 8.0 + (7.5 * i - EGO_SPEED * seconds) % 120.0
            side = _GUARD_RAIL if i % 2 else -_GUARD_RAIL
            rows.append((ahead, side + 0.2 * (rail[0, i] - 0.5), 0.6, -EGO_SPEED, 2.0 + 3.0 * rail[1, i], -1.0, 0))
        raw = np.array(rows)
        distance = np.sqrt((raw[:, :3] ** 2).sum(axis=1))
        points = np.zeros(len(raw), RADAR_POINT)
        points["x"], points["y"], points["z"] = raw[:, 0], raw[:, 1], raw[:, 2]
        points["vr"] = raw[:, 3] * raw[:, 0] / distance
        points["rcs"], points["snr"] = raw[:, 4], raw[:, 4] + 40.0 - 20.0 * np.log10(distance / 10.0)
        points["track_id"], points["flags"] = raw[:, 5] + 1, raw[:, 6]
        return points


class Camera:
    """Draws the scene from 1.4 m above the road, looking forward."""

    def __init__(self, traffic: Traffic, seed: int, width: int, height: int) -> None:
        self._traffic, self.width, self.height = traffic, width, height
        self._focal, self._horizon = 0.9 * width, int(0.45 * height)
        rows = np.arange(self._horizon + 1, height)
        self._distance = self._focal * _CAMERA_HEIGHT / (rows - self._horizon)
        self._ground = self._background(seed, rows)
        self._dashes = [self._line(rows, y, 0.12) for y in (-_LANE / 2, _LANE / 2)]
        self._posts = [self._line(rows, y, 0.25) for y in (-_GUARD_RAIL, _GUARD_RAIL)]

    def frame(self, seconds: float) -> npt.NDArray[np.uint8]:
        """The picture at a time: RGB, uint8 ``(height, width, 3)``."""
        image = self._ground.copy()
        flat = image.reshape(-1, 3)
        travelled = self._distance + EGO_SPEED * seconds
        for lines, period, length, color in ((self._dashes, 12.0, 4.0, 235), (self._posts, 7.5, 1.2, 200)):
            painted = travelled % period < length
            for row, pixel in lines:
                flat[pixel[painted[row]]] = color
        x, y, _ = self._traffic.at(seconds)
        for car in np.argsort(-x, kind="stable"):
            self._car(image, float(x[car]), float(y[car]), self._traffic.colors[car])
        return image

    def _background(self, seed: int, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        noise = draws(seed, 3, 0, self.width * self.height).reshape(self.height, self.width, 1)
        image = np.empty((self.height, self.width, 3))
        sky = np.linspace(0.0, 1.0, self._horizon + 1)[:, None, None]
        image[: self._horizon + 1] = np.array([110, 150, 210]) + sky * np.array([90, 70, 30]) + 3 * noise[: len(sky)]
        lateral = self._distance[:, None] * (self.width / 2 - np.arange(self.width)) / self._focal
        road = (np.abs(lateral) < 1.5 * _LANE + 0.4)[:, :, None]
        image[rows] = np.where(road, np.array([88, 88, 92]), np.array([84, 112, 60])) + 14 * (noise[rows] - 0.5)
        edge = np.abs(np.abs(lateral) - 1.5 * _LANE) < 0.1
        image[rows[0] :][edge] = 220
        return np.clip(image, 0, 255).astype(np.uint8)

    def _line(
        self, rows: npt.NDArray[np.int64], y: float, half: float
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The pixels of a line along the road: index of the row among `rows`, and position in the flat picture."""
        lateral = self._distance[:, None] * (self.width / 2 - np.arange(self.width)) / self._focal
        row, column = np.nonzero(np.abs(lateral - y) < half)
        return row, (row + int(rows[0])) * self.width + column

    def _car(self, image: npt.NDArray[np.uint8], x: float, y: float, color: npt.NDArray[np.uint8]) -> None:
        def box(left: float, right: float, bottom: float, top: float, paint: Any) -> None:
            u = [int(self.width / 2 - self._focal * side / x) for side in (left, right)]
            v = [int(self._horizon + self._focal * (_CAMERA_HEIGHT - up) / x) for up in (top, bottom)]
            image[max(0, v[0]) : max(0, v[1]), max(0, u[0]) : max(0, u[1])] = paint

        box(y + 1.0, y - 1.0, 0.0, 0.15, 30)
        box(y + 0.9, y - 0.9, 0.15, 0.95, color)
        box(y + 0.75, y - 0.75, 0.95, 1.5, color // 2)
        box(y + 0.65, y - 0.65, 1.0, 1.4, (60, 70, 80))
        box(y + 0.85, y + 0.55, 0.6, 0.8, (210, 30, 30))
        box(y - 0.55, y - 0.85, 0.6, 0.8, (210, 30, 30))
