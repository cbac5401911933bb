"""Shapes of annotation tools as polygons x, y, x, y, ..."""

import math

# A polygon of this many corners covers 99.8 % of an ellipse.
_CORNERS = 60


def rotated_rectangle(x1: float, y1: float, x2: float, y2: float, degrees: float) -> list[float]:
    """Turn a rectangle around its middle.

    Args:
        x1: left edge in pixels.
        y1: upper edge.
        x2: right edge.
        y2: lower edge.
        degrees: clockwise as seen on the screen.

    Returns:
        its four corners, from the upper left one.
    """
    points = [x1, y1, x2, y1, x2, y2, x1, y2]
    return rotated(points, (x1 + x2) / 2, (y1 + y2) / 2, degrees)


def ellipse(x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0.0) -> list[float]:
    """Draw an ellipse as a polygon.

    Args:
        x: of its middle in pixels.
        y: of its middle.
        radius_x: half its width before it is turned.
        radius_y: half its height before it is turned.
        degrees: that it is turned by, clockwise as seen on the screen.

    Returns:
        a polygon of 60 corners on the ellipse.
    """
    points = []
    for k in range(_CORNERS):
        angle = 2 * math.pi * k / _CORNERS
        points += [x + radius_x * math.cos(angle), y + radius_y * math.sin(angle)]
    return rotated(points, x, y, degrees)


def rotated(points: list[float], x: float, y: float, degrees: float) -> list[float]:
    """Turn a polygon.

    Args:
        points: x, y, x, y, ... in pixels.
        x: of what it turns around.
        y: of what it turns around.
        degrees: clockwise as seen on the screen, where y points down.

    Returns:
        the polygon turned.
    """
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned = []
    for px, py in zip(points[0::2], points[1::2], strict=True):
        dx, dy = px - x, py - y
        turned += [round(x + dx * cosine - dy * sine, 6), round(y + dx * sine + dy * cosine, 6)]
    return turned
