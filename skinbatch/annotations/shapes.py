"""Compute boxes around polygons, ellipses and turned rectangles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

Point = tuple[float, float]


def around(points: Iterable[Point]) -> list[float]:
    """Return x1, y1, x2, y2 of the box around some points.

    Example:
        >>> around([(3, 1), (0, 2)])
        [0, 1, 3, 2]
    """
    xs, ys = zip(*points, strict=True)
    return [min(xs), min(ys), max(xs), max(ys)]


def turned(corners: Sequence[Point], pivot: Point, degrees: float) -> list[Point]:
    """Return the corners turned clockwise about a point, in pixels with y downwards."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    moved = []
    for x, y in corners:
        dx, dy = x - pivot[0], y - pivot[1]
        moved.append((pivot[0] + dx * cos - dy * sin, pivot[1] + dx * sin + dy * cos))
    return moved


def around_ellipse(centre: Point, radii: Point, degrees: float = 0.0) -> list[float]:
    """Return the box around an ellipse that is turned clockwise."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    half_width = math.hypot(radii[0] * cos, radii[1] * sin)
    half_height = math.hypot(radii[0] * sin, radii[1] * cos)
    return [
        centre[0] - half_width,
        centre[1] - half_height,
        centre[0] + half_width,
        centre[1] + half_height,
    ]


def corners_of(x1: float, y1: float, x2: float, y2: float) -> list[Point]:
    """Return the four corners of a box."""
    return [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
