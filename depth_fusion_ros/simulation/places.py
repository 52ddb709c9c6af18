"""Build a place from named surfaces, as many as it needs, for the ray-tracing camera.

    place = Place(focal_length_px=585.0, random=random)
    place.plane((0, 0, 4.0), (0, 0, -1), "bricks")
    place.rod((0.2, -1, 2.0), (0.2, 1, 2.0), radius_m=0.01, family="planks")
    tracer = place.tracer()

A `SceneBatch` has a fixed number of slots per kind of primitive. A place that needs more is cut
into several of them, all traced by the same tracer, and the nearest hit wins: nothing is
approximated. World axes as everywhere: x right, y down, z forward, lens centre at the origin;
`Place.rotation` turns them into camera axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from depth_fusion_ros.simulation.camera import Tracer, present_primitives, trace
from depth_fusion_ros.simulation.evaluation_textures import surface_tile
from depth_fusion_ros.simulation.scenes import (
    BOXES,
    CARDS,
    ELLIPSOIDS,
    FAR_AWAY_M,
    PRIMITIVES,
    TUBES,
    WALLS,
    SceneBatch,
)
from depth_fusion_ros.simulation.textures import TILE_PX

SLOTS = {"wall": WALLS, "card": CARDS, "ellipsoid": ELLIPSOIDS, "box": BOXES, "tube": TUBES}
"""Kinds in the order in which a `SceneBatch` holds them, and how many it can hold."""
RECTANGLE_EXPONENT = 60.0
"""Superellipse exponent at which a card is a rectangle to a thousandth of its size."""

GLOSSY_SHARE = 0.2

Vector = Sequence[float] | NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class _Surface:
    """One primitive in camera axes: `axes` has the local axes as rows, `half_m` half sizes."""

    centre: Matrix
    axes: Matrix
    half_m: Matrix
    tile: int
    texels_per_m: float
    texel_offset: Matrix
    shape: tuple[float, float]
    gloss: tuple[float, float]


class Place:
    """Surfaces of one scene.

    Args:
        focal_length_px: fx of the camera; sets the texture scale so that a texel is about a pixel.
        random: source of textures, gloss, light and offsets.
        rotation: (3, 3) world → camera, see `look`; None = the camera looks along z.
    """

    def __init__(self, focal_length_px: float, random: np.random.Generator,
                 rotation: Matrix | None = None) -> None:
        self.focal_length_px = focal_length_px
        self.random = random
        self.rotation = np.eye(3) if rotation is None else rotation
        self._surfaces: dict[str, list[_Surface]] = {kind: [] for kind in SLOTS}
        self._tiles: list[Tensor] = []
        light = random.uniform((-1, -1, -1), (1, 0.1, -0.3))
        self._light = self.rotation @ (light / np.linalg.norm(light))
        self._ambient = random.uniform(0.4, 0.8)

    def plane(self, point: Vector, normal: Vector, family: str, texels_per_px: float = 0.0) -> None:
        """Add an endless plane through `point` (m); its texture runs level where it can."""
        n = _unit(normal)
        level = np.array([0.0, 1.0, 0.0]) if abs(n[1]) < 0.9 else np.array([0.0, 0.0, 1.0])
        right = _unit(np.cross(level, n))
        axes = np.stack([right, np.cross(n, right), n])
        self._add("wall", point, axes, (1, 1, 1), family, texels_per_px)

    def panel(self, centre: Vector, right: Vector, down: Vector, half_m: tuple[float, float],
              family: str, *, texels_per_px: float = 0.0, exponent: float = RECTANGLE_EXPONENT,
              hole: float = 0.0) -> None:
        """Add a thin panel; `right` and `down` are its edges' directions, made perpendicular.

        `exponent` 2 makes it an ellipse; `hole` is the radius of a round hole, relative to 1.
        """
        r = _unit(right)
        d = _unit(np.asarray(down, np.float64) - r * (r @ np.asarray(down, np.float64)))
        axes = np.stack([r, d, np.cross(r, d)])
        self._add("card", centre, axes, (*half_m, 1.0), family, texels_per_px, (exponent, hole))

    def box(self, centre: Vector, half_m: Vector, yaw_rad: float, family: str,
            texels_per_px: float = 0.0) -> None:
        """Add a box that stands level, turned about the vertical."""
        self._add("box", centre, _yaw(yaw_rad), half_m, family, texels_per_px)

    def ball(self, centre: Vector, half_m: Vector, family: str, texels_per_px: float = 0.0) -> None:
        """Add an ellipsoid with level axes."""
        self._add("ellipsoid", centre, np.eye(3), half_m, family, texels_per_px)

    def rod(self, start: Vector, end: Vector, radius_m: float, family: str,
            texels_per_px: float = 0.0) -> None:
        """Add a round rod between two points, open at its ends."""
        a, b = np.asarray(start, np.float64), np.asarray(end, np.float64)
        along = _unit(b - a)
        helper = np.array([0.0, 0.0, 1.0]) if abs(along[2]) < 0.9 else np.array([1.0, 0.0, 0.0])
        side = _unit(np.cross(along, helper))
        axes = np.stack([side, along, np.cross(side, along)])
        half = (radius_m, float(np.linalg.norm(b - a)) / 2, radius_m)
        self._add("tube", (a + b) / 2, axes, half, family, texels_per_px)

    def scenes(self) -> list[SceneBatch]:
        """Return the place as batches of one scene each; unused slots are far behind the camera."""
        atlas = torch.stack(self._tiles)
        count = max(math.ceil(len(found) / SLOTS[kind]) for kind, found in self._surfaces.items())
        return [self._scene(layer, atlas) for layer in range(count)]

    def tracer(self, device: torch.device | str = "cpu") -> Tracer:
        """Return a tracer of the whole place; it ignores the scene and primitives it is handed."""
        layers = [scene.to(device) for scene in self.scenes()]
        present = [present_primitives(layer) for layer in layers]

        def trace_all(
            _scene: SceneBatch, lens_x: Tensor, lens_y: Tensor, dir_x: Tensor, dir_y: Tensor,
            _primitives: tuple[int, ...] = (),
        ) -> tuple[Tensor, Tensor]:
            depth, colour = trace(layers[0], lens_x, lens_y, dir_x, dir_y, present[0])
            for layer, primitives in zip(layers[1:], present[1:], strict=True):
                other, paint = trace(layer, lens_x, lens_y, dir_x, dir_y, primitives)
                closer = other < depth
                depth = torch.where(closer, other, depth)
                colour = torch.where(closer[..., None], paint, colour)
            return depth, colour

        return trace_all

    def _add(self, kind: str, centre: Vector, axes: Matrix, half_m: Vector, family: str,
             texels_per_px: float, shape: tuple[float, float] = (2.0, 0.0)) -> None:
        middle = self.rotation @ np.asarray(centre, np.float64)
        texels_per_px = texels_per_px or math.exp(self.random.uniform(math.log(0.35), 0.0))
        pixel_m = max(float(np.linalg.norm(middle)), 0.05) / self.focal_length_px
        self._surfaces[kind].append(_Surface(
            middle, axes @ self.rotation.T, np.asarray(half_m, np.float64), len(self._tiles),
            texels_per_px / pixel_m, self.random.uniform(0, TILE_PX, 2), shape,
            self._gloss(kind)))
        # A generator of its own: what a tile draws must not move what is placed after it.
        self._tiles.append(surface_tile(family, np.random.default_rng(
            int(self.random.integers(2**62)))))

    def _gloss(self, kind: str) -> tuple[float, float]:
        """Strength and exponent of the highlight: a share of things is glossy, no wall is."""
        strength, exponent, chosen = self.random.random(3)
        if kind == "wall" or chosen > GLOSSY_SHARE:
            return 0.0, 1.0
        return 0.1 + 0.5 * strength, math.exp(1.5 + 2.5 * exponent)

    def _scene(self, layer: int, atlas: Tensor) -> SceneBatch:
        slots: list[_Surface | None] = []
        for kind, size in SLOTS.items():
            part = self._surfaces[kind][layer * size:(layer + 1) * size]
            slots += [*part, *[None] * (size - len(part))]
        assert len(slots) == PRIMITIVES

        def table(values: list[NDArray[np.float64] | Sequence[float]]) -> Tensor:
            return torch.tensor(np.array(values), dtype=torch.float32)[None]

        away, still = (0.0, 0.0, -FAR_AWAY_M), np.eye(3)
        return SceneBatch(
            centre=table([s.centre if s else away for s in slots]),
            to_local=table([s.axes / s.half_m[:, None] if s else still for s in slots]),
            half_size_m=table([s.half_m if s else (1, 1, 1) for s in slots]),
            tile=torch.tensor([[s.tile if s else 0 for s in slots]]),
            texels_per_m=table([[s.texels_per_m if s else 1.0] for s in slots])[..., 0],
            texel_offset=table([s.texel_offset if s else (0, 0) for s in slots]),
            shape=table([s.shape if s else (2, 0) for s in slots]),
            light=torch.tensor(self._light, dtype=torch.float32)[None],
            ambient=torch.tensor([self._ambient], dtype=torch.float32),
            atlas=atlas,
            gloss=table([s.gloss if s else (0, 1) for s in slots]),
        )


def look(yaw_rad: float, pitch_rad: float) -> Matrix:
    """World → camera rotation of a camera turned right by yaw, then down by pitch."""
    cos, sin = math.cos(pitch_rad), math.sin(pitch_rad)
    pitch = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    return np.asarray(pitch @ _yaw(yaw_rad))


def _yaw(angle_rad: float) -> Matrix:
    cos, sin = math.cos(angle_rad), math.sin(angle_rad)
    return np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])


def _unit(vector: Vector) -> Matrix:
    v = np.asarray(vector, np.float64)
    return np.asarray(v / np.linalg.norm(v))
