"""Random scenes as batched geometric primitives, ready for the ray-tracing camera.

A scene is up to `WALLS` planes and `OBJECTS` cards, ellipsoids, boxes and tubes.
Every primitive lives in a unit local space: local = M · (world − centre), where M holds rotation
and inverse size. World = camera frame, metres: x right, y down, z forward, lens centre at origin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from depth_fusion_ros.simulation.textures import TILE_PX, make_atlas

WALLS, CARDS, ELLIPSOIDS, BOXES, TUBES = 4, 4, 3, 3, 3
OBJECTS = CARDS + ELLIPSOIDS + BOXES + TUBES
PRIMITIVES = WALLS + OBJECTS
FAR_AWAY_M = 1.0e4


@dataclass(frozen=True)
class SceneBatch:
    """B scenes of `PRIMITIVES` each, in the order walls, cards, ellipsoids, boxes, tubes.

    Attributes:
        centre: (B, P, 3) metres.
        to_local: (B, P, 3, 3) rows are the local axes divided by the half size.
        half_size_m: (B, P, 3) half extents along the local axes, metres.
        tile: (B, P) int64, index into `atlas`.
        texels_per_m: (B, P) texture scale; texel_offset: (B, P, 2) texels.
        shape: (B, P, 2) superellipse exponent and hole radius (0 = none) of cards.
        light: (B, 3) unit vector towards the light; ambient: (B,) share of ambient light.
        atlas: (T, TILE_PX, TILE_PX, 3) linear albedo.
        gloss: (B, P, 2) strength and exponent of a white Blinn-Phong highlight; None = matt.
    """

    centre: Tensor
    to_local: Tensor
    half_size_m: Tensor
    tile: Tensor
    texels_per_m: Tensor
    texel_offset: Tensor
    shape: Tensor
    light: Tensor
    ambient: Tensor
    atlas: Tensor
    gloss: Tensor | None = None

    def to(self, device: torch.device | str) -> SceneBatch:
        """Return the scenes on another device."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {
            name: None if value is None else value.to(device) for name, value in values.items()}
        return SceneBatch(**moved)

    def remove(self, absent: Tensor) -> None:
        """Take primitives out of the scenes in place; absent: (B, P) bool."""
        depth = self.centre[..., 2]
        self.centre[..., 2] = torch.where(absent, torch.full_like(depth, -FAR_AWAY_M), depth)

    def moved(self, translation_m: Tensor, yaw_rad: Tensor) -> SceneBatch:
        """Return the scenes seen by a camera that was moved by (B, 3) metres and (B,) yaw."""
        cos, sin, zero = torch.cos(yaw_rad), torch.sin(yaw_rad), torch.zeros_like(yaw_rad)
        one = torch.ones_like(yaw_rad)
        rotation = torch.stack(
            [cos, zero, -sin, zero, one, zero, sin, zero, cos], -1
        ).reshape(-1, 3, 3)  # world -> moved camera
        centre = torch.einsum("bij,bpj->bpi", rotation, self.centre - translation_m[:, None])
        to_local = torch.einsum("bpij,bkj->bpik", self.to_local, rotation)
        light = torch.einsum("bij,bj->bi", rotation, self.light)
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return SceneBatch(**{**values, "centre": centre, "to_local": to_local, "light": light})


@dataclass(frozen=True)
class SceneView:
    """What the scene generator must know of the camera: per scene (B,) tensors, float32.

    Attributes:
        focal_length_px: fx = fy in px. near_m, far_m: depth range of the objects, metres.
        width_px, height_px: size of the image (the same for the whole batch).
        offset_px: (B, 2) position of the image centre relative to the optical axis.
    """

    focal_length_px: Tensor
    near_m: Tensor
    far_m: Tensor
    offset_px: Tensor
    width_px: int
    height_px: int


def random_scenes(
    view: SceneView, generator: torch.Generator, atlas: Tensor | None = None
) -> SceneBatch:
    """Draw one scene per entry of `view`; depths are uniform in dioptres.

    Args:
        view: camera facts, see `SceneView`.
        generator: CPU generator; same state, same scenes.
        atlas: (T, TILE_PX, TILE_PX, 3) shared albedo tiles; drawn here when None.
    """
    batch = view.near_m.shape[0]
    if atlas is None:
        atlas = make_atlas(24, generator)

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    rotation = _random_rotation(uniform(batch, PRIMITIVES, 3))
    near, far = view.near_m[:, None], view.far_m[:, None]
    inverse = uniform(batch, PRIMITIVES)
    depth = 1.0 / (1.0 / far + inverse * (1.0 / near - 1.0 / far))
    pixel_m = depth / view.focal_length_px[:, None]  # size of one pixel at that depth
    span = torch.tensor([view.width_px, view.height_px], dtype=torch.float32)
    pixel = (uniform(batch, PRIMITIVES, 2) - 0.5) * 1.15 * span + view.offset_px[:, None]
    centre = torch.cat([pixel * pixel_m[..., None], depth[..., None]], -1)

    diameter_px = float(max(view.width_px, view.height_px))
    size_px = diameter_px * torch.exp(uniform(batch, PRIMITIVES, low=math.log(0.07),
                                              high=math.log(0.75)))
    aspect = torch.exp(uniform(batch, PRIMITIVES, 3, low=-0.5, high=0.5))
    half = (size_px * pixel_m)[..., None] * aspect
    tubes = slice(PRIMITIVES - TUBES, PRIMITIVES)
    thin_px = torch.exp(uniform(batch, TUBES, low=math.log(0.8), high=math.log(22.0)))
    half[:, tubes, 0] = half[:, tubes, 2] = thin_px * pixel_m[:, tubes]
    half[:, tubes, 1] = diameter_px * pixel_m[:, tubes] * uniform(batch, TUBES, low=0.2, high=0.9)
    thin = uniform(batch, CARDS) < 0.35  # leaves, slats and sticks
    cards = slice(WALLS, WALLS + CARDS)
    half[:, cards, 0] = torch.where(thin, 0.15 * half[:, cards, 0], half[:, cards, 0])

    _place_walls(view, uniform(batch, 8), centre, rotation, half)
    absent = uniform(batch, PRIMITIVES) < 0.4
    absent[:, 0] = False
    absent[:, 1] = uniform(batch) < 0.35
    absent[:, 2:WALLS] = True
    centre[..., 2] = torch.where(absent, torch.full_like(depth, -FAR_AWAY_M), centre[..., 2])

    texels_per_px = torch.exp(uniform(batch, PRIMITIVES, low=math.log(0.35), high=math.log(2.6)))
    scale_depth = centre[..., 2].abs().clamp(max=100.0) / view.focal_length_px[:, None]
    shape = torch.stack(
        [
            torch.tensor([1.0, 2.0, 2.0, 8.0])[
                torch.randint(4, (batch, PRIMITIVES), generator=generator)
            ],
            uniform(batch, PRIMITIVES) * (uniform(batch, PRIMITIVES) < 0.3) * 0.85,
        ],
        -1,
    )
    light = torch.stack(
        [uniform(batch, low=-1, high=1), uniform(batch, low=-1, high=0.2),
         uniform(batch, low=-1, high=-0.2)], -1)
    return SceneBatch(
        centre=centre,
        to_local=rotation / half[..., None],
        half_size_m=half,
        tile=torch.randint(atlas.shape[0], (batch, PRIMITIVES), generator=generator),
        texels_per_m=texels_per_px / scale_depth,
        texel_offset=uniform(batch, PRIMITIVES, 2) * TILE_PX,
        shape=shape,
        light=light / light.norm(dim=-1, keepdim=True),
        ambient=uniform(batch, low=0.35, high=0.9),
        atlas=atlas,
    )


def _random_rotation(u: Tensor) -> Tensor:
    """Uniform random rotations from (…, 3) uniform numbers (Shoemake's quaternion method)."""
    a, b, c = u.unbind(-1)
    r1, r2 = torch.sqrt(1 - a), torch.sqrt(a)
    x, y = r1 * torch.sin(2 * math.pi * b), r1 * torch.cos(2 * math.pi * b)
    z, w = r2 * torch.sin(2 * math.pi * c), r2 * torch.cos(2 * math.pi * c)
    return torch.stack(
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
         2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
         2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], -1
    ).reshape(*u.shape[:-1], 3, 3)


def _place_walls(view: SceneView, u: Tensor, centre: Tensor, rotation: Tensor,
                 half: Tensor) -> None:
    """Primitive 0: slanted back wall behind everything; 1: floor (or ceiling) plane."""
    far = view.far_m
    axis_m = view.offset_px / view.focal_length_px[:, None]
    tilt = (u[:, :2] - 0.5) * torch.where(u[:, 2:3] < 0.5, 2.4, 0.5)  # up to ±50 degrees
    normal = torch.stack([torch.tan(tilt[:, 0]), torch.tan(tilt[:, 1]),
                          -torch.ones_like(far)], -1)
    rotation[:, 0] = plane_frame(normal)
    centre[:, 0] = torch.stack([axis_m[:, 0] * far, axis_m[:, 1] * far, far], -1)
    below = torch.where(u[:, 3] < 0.8, 1.0, -1.0)
    height_px = view.height_px * (0.15 + 0.6 * u[:, 4])
    # The floor crosses the image: at depth far it lies height_px/8 below the image centre,
    # so its near part reaches the lower border at about a quarter of that depth.
    drop = far * (axis_m[:, 1] + below * height_px / view.focal_length_px / 4)
    normal = torch.stack([(u[:, 5] - 0.5) * 0.5, -torch.ones_like(far),
                          (u[:, 6] - 0.5) * 0.3], -1)
    rotation[:, 1] = plane_frame(normal)
    centre[:, 1] = torch.stack([axis_m[:, 0] * far, drop, far], -1)
    half[:, :WALLS] = 1.0  # local units are metres; walls have no outline


def plane_frame(normal: Tensor) -> Tensor:
    """Rows: two tangents and the unit normal of (B, 3) normals."""
    n = normal / normal.norm(dim=-1, keepdim=True)
    helper = torch.tensor([0.3, 0.5, 0.8]).expand_as(n)
    t = torch.linalg.cross(helper, n)
    t = t / t.norm(dim=-1, keepdim=True)
    return torch.stack([t, torch.linalg.cross(n, t), n], -2)
