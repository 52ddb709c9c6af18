"""Eight kinds of built places for evaluation: what a robot's camera stands in front of.

Training draws random primitives, loose or standing about in a room; here they are composed into
things that it never draws: furnished room, corridor with doors and a pipe, laid table, filled
shelves, poles and sagging cables, doorway in a blank wall, steep panels with holes, columns. Each
maker fills a `Place` within the camera's view and depth range.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from depth_fusion_ros.simulation.evaluation_textures import FAMILIES
from depth_fusion_ros.simulation.places import Place, look

PLAIN = ("plaster", "gradient")
BUSY = tuple(name for name in FAMILIES if name not in PLAIN)


@dataclass(frozen=True)
class PlaceView:
    """What a maker must know of the camera.

    Attributes:
        focal_length_px: fx = fy. half_x, half_y: tangents from the axis to the image borders.
        near_m, far_m: depths between which the place extends.
    """

    focal_length_px: float
    half_x: float
    half_y: float
    near_m: float
    far_m: float

    def depth(self, share: float) -> float:
        """Depth at a share of the dioptre range, m: 0 = far, 1 = near."""
        return 1 / ((1 - share) / self.far_m + share / self.near_m)

    @property
    def middle_m(self) -> float:
        """Where surfaces that run away from the camera have their texture's nominal scale."""
        return self.depth(0.3)


Random = np.random.Generator


def make_place(kind: str, view: PlaceView, random: Random) -> Place:
    """Build a place of one of the kinds in `PLACES`.

    Raises:
        ValueError: no such kind.
    """
    if kind not in PLACES:
        raise ValueError(f"place {kind!r}: use one of {', '.join(PLACES)}")
    return PLACES[kind](view, random)


def _any(random: Random, plain_share: float = 0.25) -> str:
    return str(random.choice(PLAIN if random.random() < plain_share else BUSY))


def _place(view: PlaceView, random: Random, pitch: float = 0.0) -> Place:
    yaw = random.uniform(-0.12, 0.12)
    return Place(view.focal_length_px, random, look(yaw, pitch + random.uniform(-0.04, 0.04)))


def _room(view: PlaceView, random: Random) -> Place:
    """A corner of a room with furniture."""
    place = _place(view, random, 0.06)
    side = random.choice((-1.0, 1.0))
    wall_x = side * view.half_x * view.depth(random.uniform(0.15, 0.5))
    floor_y = view.half_y * view.depth(random.uniform(0.25, 0.7))
    place.plane((0, 0, view.far_m), (0, 0, -1), _any(random))
    place.plane((wall_x, 0, view.middle_m), (-side, 0, 0), _any(random))
    place.plane((0, floor_y, view.middle_m), (0, -1, 0),
                str(random.choice(("planks", "voronoi", "weave"))))
    if random.random() < 0.6:
        ceiling_y = -view.half_y * view.depth(random.uniform(0.1, 0.4))
        place.plane((0, ceiling_y, view.middle_m), (0, 1, 0), str(random.choice(PLAIN)))
    for share in random.uniform(0.15, 0.75, 3):
        z = view.depth(float(share))
        width, height = view.half_x * z * random.uniform(0.12, 0.3), random.uniform(0.3, 0.9)
        half = (width, height * floor_y, width * random.uniform(0.6, 1.2))
        x = -side * view.half_x * z * random.uniform(-0.5, 0.9)
        place.box((x, floor_y - half[1], z + half[2]), half, random.uniform(-0.6, 0.6),
                  _any(random))
    picture = view.half_x * view.far_m * random.uniform(0.12, 0.25)
    place.panel((-side * picture, -0.3 * view.half_y * view.far_m, 0.995 * view.far_m), (1, 0, 0),
                (0, 1, 0), (picture, 0.75 * picture), "text")
    return place


def _corridor(view: PlaceView, random: Random) -> Place:
    """Four surfaces that run away, doors in the sides, a pipe under the ceiling."""
    place = _place(view, random)
    walls = [view.half_x * view.depth(share) for share in random.uniform(0.55, 0.95, 2)]
    floor_y, ceiling_y = (view.half_y * view.depth(s) for s in random.uniform(0.5, 0.9, 2))
    place.plane((0, 0, view.far_m), (0, 0, -1), _any(random))
    place.plane((-walls[0], 0, view.middle_m), (1, 0, 0), _any(random, 0.4))
    place.plane((walls[1], 0, view.middle_m), (-1, 0, 0), _any(random, 0.4))
    place.plane((0, floor_y, view.middle_m), (0, -1, 0),
                str(random.choice(("planks", "voronoi", "marble"))))
    place.plane((0, -ceiling_y, view.middle_m), (0, 1, 0), str(random.choice(PLAIN)))
    for index, share in enumerate(random.uniform(0.1, 0.6, 3)):
        z = view.depth(float(share))
        side = -walls[0] if index % 2 else walls[1]
        top = -0.6 * ceiling_y
        place.panel((0.985 * side, (floor_y + top) / 2, z), (0, 0, 1), (0, 1, 0),
                    (0.1 * z, (floor_y - top) / 2), _any(random))
    pipe_x, pipe_y = random.uniform(-0.7, 0.7) * walls[0], -0.85 * ceiling_y
    place.rod((pipe_x, pipe_y, 0.6 * view.near_m), (pipe_x, pipe_y, view.far_m),
              0.05 * ceiling_y + 0.004, _any(random))
    z = view.depth(random.uniform(0.25, 0.6))
    place.box((random.uniform(-0.4, 0.4) * walls[0], 0.6 * floor_y, z),
              (0.3 * walls[0], 0.4 * floor_y, 0.3 * walls[0]), random.uniform(-0.7, 0.7), "text")
    return place


def _table(view: PlaceView, random: Random) -> Place:
    """Seen from above: boxes, cans and balls on a table, a wall behind it."""
    pitch = random.uniform(0.3, 0.6)
    place = _place(view, random, pitch)
    reach = view.depth(random.uniform(0.45, 0.65))  # to the middle of the table along the axis
    height, middle = reach * math.sin(pitch), reach * math.cos(pitch)
    half = (1.3 * view.half_x * reach, 0.55 * middle)
    place.plane((0, 0, view.far_m), (0, 0, -1), _any(random, 0.5))
    place.plane((0, 2.2 * height, view.middle_m), (0, -1, 0), _any(random))
    place.panel((0, height, middle), (1, 0, 0), (0, 0, 1), half,
                str(random.choice(("planks", "weave", "marble", "text", "plaster"))))
    for index in range(9):
        x = random.uniform(-0.85, 0.85) * half[0]
        z = middle + random.uniform(-0.6, 0.9) * half[1]
        size = reach * view.half_x * random.uniform(0.07, 0.22)
        tall = size * random.uniform(0.5, 1.6)
        if index % 3 == 0:
            place.rod((x, height - 2 * tall, z), (x, height, z), 0.6 * size, _any(random))
            place.panel((x, height - 2 * tall, z), (1, 0, 0), (0, 0, 1), (0.6 * size, 0.6 * size),
                        _any(random), exponent=2.0)
        elif index % 3 == 1:
            place.ball((x, height - size, z), (size, size, size), _any(random))
        else:
            place.box((x, height - tall, z), (size, tall, 0.7 * size), random.uniform(-1.5, 1.5),
                      _any(random))
    return place


def _shelves(view: PlaceView, random: Random) -> Place:
    """Boards between uprights, filled with boxes, bottles and balls."""
    place = _place(view, random)
    front = view.depth(random.uniform(0.55, 0.85))
    deep = 0.5 * min(front * random.uniform(0.25, 0.5), view.far_m - front)
    width, height = 0.85 * view.half_x * front, 1.3 * view.half_y * front
    place.plane((0, 0, view.far_m), (0, 0, -1), _any(random))
    place.panel((0, 0, front + 2 * deep), (1, 0, 0), (0, 1, 0), (width, height), _any(random, 0.5))
    board = 0.02 * front * view.half_x + 0.001
    for x in (-width, random.uniform(-0.2, 0.2) * width, width):
        place.box((x, 0, front + deep), (board, height, deep), 0, "planks")
    levels = np.linspace(-0.75, 0.75, 4) * view.half_y * front
    for y in levels:
        place.box((0, y, front + deep), (width, board, 0.98 * deep), 0, "planks")
        for x in random.permutation(np.linspace(-0.8, 0.8, 7) * width)[:4]:
            size = width * random.uniform(0.05, 0.1)
            tall = min(size * random.uniform(1.0, 2.5), 0.2 * view.half_y * front)
            z = front + deep * random.uniform(0.3, 1.2)
            chosen = random.random()
            if chosen < 0.6:
                place.box((x, y - board - tall, z), (size, tall, 0.5 * deep),
                          random.uniform(-0.3, 0.3), _any(random, 0.15))
            elif chosen < 0.8:
                place.rod((x, y - board - 2 * tall, z), (x, y, z), 0.7 * size, _any(random, 0.15))
            else:
                place.ball((x, y - board - size, z), (size, size, size), _any(random, 0.15))
    return place


def _poles(view: PlaceView, random: Random) -> Place:
    """Poles from less than a pixel to some pixels thick, and sagging cables, before a wall."""
    place = _place(view, random)
    floor_y = view.half_y * view.depth(random.uniform(0.3, 0.6))
    place.plane((0, 0, view.far_m), (0.25 * random.uniform(-1, 1), 0, -1), _any(random, 0.15))
    place.plane((0, floor_y, view.middle_m), (0, -1, 0), _any(random))
    pixel = 1 / view.focal_length_px
    for share in random.uniform(0.1, 0.98, 7):
        z = view.depth(float(share))
        x = view.half_x * z * random.uniform(-0.95, 0.95)
        lean = 0.15 * z * random.uniform(-1, 1)
        radius = z * pixel * math.exp(random.uniform(math.log(0.5), math.log(6.0)))
        place.rod((x, floor_y, z), (x + lean, -1.6 * view.half_y * z, z), radius, _any(random))
    for share in random.uniform(0.2, 0.9, 3):
        z, sag = view.depth(float(share)), random.uniform(0.1, 0.5)
        height = -view.half_y * z * random.uniform(0.1, 0.8)
        radius = z * pixel * random.uniform(0.4, 1.6)
        steps = np.linspace(-1.3, 1.3, 7)
        turn = random.uniform(-0.3, 0.3)  # the cable also changes depth along its way
        points = [(view.half_x * z * t, height + sag * view.half_y * z * (1 - (t / 1.3) ** 2),
                   z * (1 + turn * t)) for t in steps]
        for start, end in pairwise(points):
            place.rod(start, end, radius, "gradient")
    return place


def _doorway(view: PlaceView, random: Random) -> Place:
    """A blank wall with an opening, a lit room behind it."""
    place = _place(view, random)
    wall = view.depth(random.uniform(0.45, 0.8))
    x0, x1 = np.sort(random.uniform(-0.6, 0.6, 2)) * view.half_x * wall
    if x1 - x0 < 0.5 * view.half_x * wall:
        x0, x1 = x0 - 0.25 * view.half_x * wall, x1 + 0.25 * view.half_x * wall
    top = -random.uniform(0.3, 0.8) * view.half_y * wall
    reach = 4 * view.half_x * wall
    blank = str(random.choice(PLAIN))
    floor_y = view.half_y * wall * random.uniform(0.7, 0.95)
    for left, right in ((x0 - reach, x0), (x1, x1 + reach)):
        place.panel(((left + right) / 2, 0, wall), (1, 0, 0), (0, 1, 0),
                    ((right - left) / 2, reach), blank)
    # The lintel laps over the sides: its corners are rounded by a thousandth of its size.
    place.panel(((x0 + x1) / 2, top - reach, wall), (1, 0, 0), (0, 1, 0),
                (0.7 * (x1 - x0), reach), blank)
    frame = 0.012 * wall
    for x in (x0, x1):
        place.box((x, (top + floor_y) / 2, wall), (frame, (floor_y - top) / 2, frame), 0, "planks")
    place.plane((0, 0, view.far_m), (0, 0, -1), _any(random, 0.1))
    place.plane((0, floor_y, view.middle_m), (0, -1, 0), _any(random, 0.1))
    z = 1 / (0.5 / wall + 0.5 / view.far_m)
    size = 0.3 * (x1 - x0) * z / wall
    place.box(((x0 + x1) / 2 * z / wall, floor_y - size, z), (size, size, size),
              random.uniform(-0.7, 0.7), _any(random, 0.1))
    return place


def _slants(view: PlaceView, random: Random) -> Place:
    """Large panels at steep angles before a tilted wall."""
    place = _place(view, random)
    place.plane((0, 0, view.far_m), (random.uniform(-0.5, 0.5), random.uniform(-0.4, 0.4), -1),
                _any(random))
    for share in np.linspace(0.2, 0.85, 4) + random.uniform(-0.1, 0.1, 4):
        z = view.depth(float(share))
        turn, tip = random.uniform(0.5, 1.1, 2) * random.choice((-1, 1), 2)
        roll = random.uniform(-0.4, 0.4)
        right = (math.cos(turn), math.sin(roll), math.sin(turn))
        down = (-math.sin(roll), math.cos(tip), math.sin(tip))
        size = view.half_x * z * random.uniform(0.3, 0.6)
        centre = (view.half_x * z * random.uniform(-0.8, 0.8),
                  view.half_y * z * random.uniform(-0.7, 0.7), z)
        place.panel(centre, right, down, (size, size * random.uniform(0.5, 1.0)), _any(random),
                    hole=0.35 if random.random() < 0.25 else 0.0)
    return place


def _columns(view: PlaceView, random: Random) -> Place:
    """Thick columns and domes: depth that curves away."""
    place = _place(view, random)
    floor_y = view.half_y * view.depth(random.uniform(0.3, 0.7))
    place.plane((0, 0, view.far_m), (0, 0, -1), _any(random))
    place.plane((0, floor_y, view.middle_m), (0, -1, 0), _any(random))
    for share in np.linspace(0.15, 0.9, 4) + random.uniform(-0.08, 0.08, 4):
        z = view.depth(float(share))
        radius = view.half_x * z * random.uniform(0.12, 0.35)
        x = view.half_x * z * random.uniform(-0.9, 0.9)
        place.rod((x, floor_y, z + radius), (x, -3 * view.half_y * z, z + radius), radius,
                  _any(random))
    for share in random.uniform(0.3, 0.9, 2):
        z = view.depth(float(share))
        size = view.half_x * z * random.uniform(0.15, 0.35)
        half = size * random.uniform(0.6, 1.4, 3)
        place.ball((view.half_x * z * random.uniform(-0.8, 0.8), floor_y - 0.5 * half[1],
                    z + half[2]), half, _any(random))
    return place


PLACES: dict[str, Callable[[PlaceView, Random], Place]] = {
    "room": _room, "corridor": _corridor, "table": _table, "shelves": _shelves, "poles": _poles,
    "doorway": _doorway, "slants": _slants, "columns": _columns,
}
