"""Training scenes at the scale of a whole picture: rooms with furniture, and loose clutter.

`random_scenes` scatters small things; a picture of a real place is mostly a few large surfaces:
floor and walls that lead from near to far, things that stand on the floor, poles, and large
areas with hardly any texture. Here a share of the scenes is built like that.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from depth_fusion_ros.simulation.scenes import (
    BOXES,
    CARDS,
    ELLIPSOIDS,
    PRIMITIVES,
    WALLS,
    SceneBatch,
    SceneView,
    plane_frame,
    random_scenes,
)

ROOM_SHARE = 0.55
GLOSSY_SHARE = 0.3
COARSE_SHARE = 0.25
SIDE_WALL_SHARE = 0.35


def random_rooms(view: SceneView, generator: torch.Generator, atlas: Tensor) -> SceneBatch:
    """Draw one scene per entry of `view`: a room for `ROOM_SHARE` of them, clutter for the rest.

    Args:
        view: of the whole picture, of which a training crop sees a part.
        generator: CPU generator; same state, same scenes.
        atlas: (T, TILE_PX, TILE_PX, 3) shared albedo tiles.
    """
    scene = random_scenes(view, generator, atlas)
    batch = view.near_m.shape[0]

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(batch, *shape, generator=generator)

    room = uniform() < ROOM_SHARE
    _walls(scene, view, room, uniform(10))
    _shrink(scene, torch.exp(uniform(PRIMITIVES, low=math.log(0.4), high=math.log(1.2))))
    _stand_on_floor(scene, room, uniform(PRIMITIVES, 4))
    # Some pictures are crowded, some are nearly empty.
    absent = uniform(PRIMITIVES) > uniform(1, low=0.5, high=1.1)
    absent[:, :WALLS] = False
    scene.remove(absent)

    coarse = torch.exp(uniform(PRIMITIVES, low=math.log(0.3), high=0.0))
    scene.texels_per_m.mul_(torch.where(uniform(PRIMITIVES) < COARSE_SHARE, coarse, torch.ones(())))
    strength = uniform(PRIMITIVES, low=0.1, high=0.7) * (uniform(PRIMITIVES) < GLOSSY_SHARE)
    strength[:, :WALLS] = 0.0
    exponent = torch.exp(uniform(PRIMITIVES, low=math.log(4.0), high=math.log(90.0)))
    return SceneBatch(**{**scene.__dict__, "gloss": torch.stack([strength, exponent], -1)})


def _walls(scene: SceneBatch, view: SceneView, room: Tensor, u: Tensor) -> None:
    """Rooms: an upright back wall, a floor nearly always, side walls that lead into depth."""
    far, fx = view.far_m, view.focal_length_px
    upright = room & (u[:, 0] < 0.75)
    tilt = 0.5 * (u[:, 1:3] - 0.5)
    normal = torch.stack([torch.tan(tilt[:, 0]), 0.5 * torch.tan(tilt[:, 1]),
                          -torch.ones_like(far)], -1)
    scene.to_local[:, 0] = torch.where(
        upright[:, None, None], plane_frame(normal), scene.to_local[:, 0])
    axis_m = far * view.offset_px[:, 0] / fx
    absent = torch.zeros(scene.centre.shape[:2], dtype=torch.bool)
    for slot, side in ((2, -1.0), (3, 1.0)):
        reach_px = view.width_px * (0.12 + 0.5 * u[:, slot + 1])
        turn = 0.7 * (u[:, slot + 3] - 0.5)
        scene.to_local[:, slot] = plane_frame(torch.stack(
            [torch.full_like(far, side), torch.zeros_like(far), torch.tan(turn)], -1))
        scene.centre[:, slot] = torch.stack(
            [axis_m + side * far * reach_px / fx, torch.zeros_like(far), far], -1)
        absent[:, slot] = ~room | (u[:, slot + 5] > SIDE_WALL_SHARE)
    scene.remove(absent)


def _shrink(scene: SceneBatch, factor: Tensor) -> None:
    """Scale everything but the walls by (B, P)."""
    factor[:, :WALLS] = 1.0
    scene.half_size_m.mul_(factor[..., None])
    scene.to_local.div_(factor[..., None, None])


def _stand_on_floor(scene: SceneBatch, room: Tensor, u: Tensor) -> None:
    """Rooms with a floor below: most boxes, columns and balls stand on it, upright."""
    floor = scene.centre[:, 1]
    normal = scene.to_local[:, 1, 2]
    has_floor = room & (floor[:, 2] > 0) & (floor[:, 1] > 0)
    columns = WALLS + CARDS + ELLIPSOIDS + BOXES
    for p in range(WALLS + CARDS, PRIMITIVES):
        stand = has_floor & (u[:, p, 0] < 0.7) & (scene.centre[:, p, 2] > 0)
        if p >= columns:  # poles stay thin, a third become columns
            thick = 1 + 9 * u[:, p, 1] * (u[:, p, 2] < 0.35)
            for axis in (0, 2):
                scene.half_size_m[:, p, axis] *= thick
                scene.to_local[:, p, axis] /= thick[:, None]
        yaw = 2 * math.pi * u[:, p, 3]
        zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)
        right = torch.stack([torch.cos(yaw), zero, torch.sin(yaw)], -1)
        up = torch.stack([zero, one, zero], -1)
        axes = torch.stack([right, up, torch.linalg.cross(right, up)], -2)
        half = scene.half_size_m[:, p]
        x, z = scene.centre[:, p, 0], scene.centre[:, p, 2]
        level = floor[:, 1] - (normal[:, 0] * (x - floor[:, 0]) + normal[:, 2] * (z - floor[:, 2])
                               ) / normal[:, 1]
        scene.to_local[:, p] = torch.where(
            stand[:, None, None], axes / half[..., None], scene.to_local[:, p])
        scene.centre[:, p, 1] = torch.where(stand, level - half[:, 1], scene.centre[:, p, 1])
