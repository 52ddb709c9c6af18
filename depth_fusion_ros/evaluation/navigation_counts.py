"""The clouds that a node would give Nav2 of one estimate, and what of them the truth contradicts.

    clouds = navigation_clouds(estimate, CloudOptions())
    counts = navigation_counts(clouds, truth_m, estimate.intrinsics)

The costmap that they make is scored in `costmap_score.py`; these are its causes: a point in front
of the truth marks what is free, a ray that ends behind it clears what is there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.estimation.estimate import DepthEstimate
from depth_fusion_ros.navigation.cloud import (
    CloudOptions,
    clearing_points,
    is_blind,
    obstacle_points,
)
from depth_fusion_ros.optics.intrinsics import Intrinsics

FRONT_SIGMAS = 3.0


@dataclass(frozen=True)
class NavigationClouds:
    """Both clouds of one frame, in the optical frame, metres, all finite.

    Attributes:
        obstacles: (N, 4) float32 x, y, z, σ. clearing: (M, 3) float32 ends of free rays.
        blind: nothing was measured well enough to mark: the node sends neither of them, unless
            `cloud.silent_when_blind` is off.
    """

    obstacles: NDArray[np.float32]
    clearing: NDArray[np.float32]
    blind: bool


def navigation_clouds(estimate: DepthEstimate, options: CloudOptions) -> NavigationClouds:
    """Make the clouds as the node does; see `navigation/cloud.py`."""
    arrays = (estimate.depth_m, estimate.sigma_m, estimate.provenance, estimate.intrinsics)
    obstacles, rays = obstacle_points(*arrays, options), clearing_points(*arrays, options)
    return NavigationClouds(
        np.frombuffer(obstacles.data, np.float32).reshape(-1, 4),
        np.frombuffer(rays.data, np.float32).reshape(-1, 3),
        obstacles.count == 0 and (rays.count == 0 or is_blind(*arrays[:3], options)))


def navigation_counts(clouds: NavigationClouds, truth_m: NDArray[np.float32],
                      intrinsics: Intrinsics) -> dict[str, int]:
    """Points nearer than the truth by more than 3σ, and rays that end behind it.

    Args:
        truth_m: (H, W) metres, not finite = not known there. intrinsics: of it and the clouds.

    Returns:
        points, rays: those with a truth. points_in_front, rays_through: those of them wrong.
    """
    points, rays = clouds.obstacles, clouds.clearing
    there, behind = _truth_at(points, truth_m, intrinsics), _truth_at(rays, truth_m, intrinsics)
    known, sound = np.isfinite(there), np.isfinite(behind)
    with np.errstate(invalid="ignore"):
        in_front = points[:, 2] < there - FRONT_SIGMAS * points[:, 3]
        through = rays[:, 2] > behind
    return {"points": int(known.sum()), "points_in_front": int((known & in_front).sum()),
            "rays": int(sound.sum()), "rays_through": int((sound & through).sum())}


def _truth_at(points: NDArray[np.float32], truth_m: NDArray[np.float32], k: Intrinsics
              ) -> NDArray[np.float32]:
    """Truth at the pixel of each point; its own ray goes through the pixel's centre."""
    column = np.rint(points[:, 0] / points[:, 2] * k.fx_px + k.cx_px).astype(np.intp)
    row = np.rint(points[:, 1] / points[:, 2] * k.fy_px + k.cy_px).astype(np.intp)
    return np.asarray(
        truth_m[np.clip(row, 0, k.height_px - 1), np.clip(column, 0, k.width_px - 1)])
