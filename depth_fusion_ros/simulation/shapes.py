"""Where rays meet the primitives, each in its own unit local space, as plain tensor arithmetic.

Every function takes ray origin o and direction d in local coordinates (broadcastable, the ray is
o + z·d with z the depth) and `shape` (B, 2, 1, 1); it returns depth, hit point and normal. No hit
is a depth beyond `NOTHING_M` or a NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from depth_fusion_ros.simulation.scenes import BOXES, CARDS, ELLIPSOIDS, TUBES, WALLS

NEAREST_M = 0.02
NOTHING_M = 1.0e3
WALL, CARD, ELLIPSOID, BOX, TUBE = range(5)
KINDS = ([WALL] * WALLS + [CARD] * CARDS + [ELLIPSOID] * ELLIPSOIDS + [BOX] * BOXES
         + [TUBE] * TUBES)
Hit = tuple[Tensor, ...]
"""Depth z, local hit point (3) and local normal (3)."""


def hit_wall(ox: Tensor, oy: Tensor, oz: Tensor, dx: Tensor, dy: Tensor, dz: Tensor,
              shape: Tensor) -> Hit:
    """The plane z = 0, without outline."""
    z = -oz / dz
    zero = torch.zeros_like(z)
    return z, ox + z * dx, oy + z * dy, zero, zero, zero, torch.ones_like(z)


def hit_card(ox: Tensor, oy: Tensor, oz: Tensor, dx: Tensor, dy: Tensor, dz: Tensor,
              shape: Tensor) -> Hit:
    """A superellipse |x|^n + |y|^n < 1 in the plane z = 0, perhaps with a round hole."""
    z, px, py, *rest = hit_wall(ox, oy, oz, dx, dy, dz, shape)
    radius = px.abs() ** shape[:, 0] + py.abs() ** shape[:, 0]
    hit = (radius < 1.0) & (px * px + py * py >= shape[:, 1] ** 2)
    return torch.where(hit, z, 2 * NOTHING_M), px, py, *rest


def hit_ellipsoid(ox: Tensor, oy: Tensor, oz: Tensor, dx: Tensor, dy: Tensor, dz: Tensor,
                   shape: Tensor) -> Hit:
    """The unit sphere, from outside."""
    a = dx * dx + dy * dy + dz * dz
    b = ox * dx + oy * dy + oz * dz
    c = ox * ox + oy * oy + oz * oz - 1
    disc = b * b - a * c
    z = (-b - torch.sqrt(disc.clamp_min(0))) / a
    point = (ox + z * dx, oy + z * dy, oz + z * dz)
    return torch.where(disc > 0, z, 2 * NOTHING_M), *point, *point


def hit_box(ox: Tensor, oy: Tensor, oz: Tensor, dx: Tensor, dy: Tensor, dz: Tensor,
             shape: Tensor) -> Hit:
    """The cube of half side 1, from outside."""
    # Entry distance of each slab; the last entry before the first exit is the hit.
    ix, iy, iz = 1 / dx, 1 / dy, 1 / dz
    near_x, near_y, near_z = (-ox * ix - ix.abs(), -oy * iy - iy.abs(), -oz * iz - iz.abs())
    far = torch.minimum(torch.minimum(-ox * ix + ix.abs(), -oy * iy + iy.abs()),
                        -oz * iz + iz.abs())
    z = torch.maximum(torch.maximum(near_x, near_y), near_z)
    zero = torch.zeros_like(z)
    on_x = near_x >= z
    on_y = ~on_x & (near_y >= z)
    normal = (torch.where(on_x, -torch.sign(dx), zero), torch.where(on_y, -torch.sign(dy), zero),
              torch.where(on_x | on_y, zero, -torch.sign(dz)))
    return (torch.where(z < far, z, 2 * NOTHING_M), ox + z * dx, oy + z * dy, oz + z * dz,
            *normal)


def hit_tube(ox: Tensor, oy: Tensor, oz: Tensor, dx: Tensor, dy: Tensor, dz: Tensor,
              shape: Tensor) -> Hit:
    """The open cylinder x² + z² = 1, |y| < 1; its inside is seen through its ends."""
    a = dx * dx + dz * dz
    b = ox * dx + oz * dz
    c = ox * ox + oz * oz - 1
    disc = b * b - a * c
    root = torch.sqrt(disc.clamp_min(0))
    first = (-b - root) / a
    z = torch.where((oy + first * dy).abs() < 1, first, (-b + root) / a)
    px, py, pz = ox + z * dx, oy + z * dy, oz + z * dz
    hit = (disc > 0) & (py.abs() < 1)
    return torch.where(hit, z, 2 * NOTHING_M), px, py, pz, px, torch.zeros_like(z), pz


HITS = (hit_wall, hit_card, hit_ellipsoid, hit_box, hit_tube)
