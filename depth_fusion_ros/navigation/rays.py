"""Rays of a depth image, and which of its pixels may be relied on. NumPy only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.estimation.estimate import Intrinsics, Provenance

__all__ = ["FARTHEST_M", "RayGrid", "check_sizes", "confident", "far_by_evidence", "ray_grid",
           "require"]

FARTHEST_M = 1e6
"""Finite depths beyond are not believed: squares and voxel numbers would lose their meaning."""


def require(rules: Iterable[tuple[str, object, bool, str]]) -> None:
    """Raise ValueError for the first (name, value, holds, rule) that does not hold."""
    for name, value, holds, rule in rules:
        if not holds:
            raise ValueError(f"{name} = {value!r}: must be {rule}; set {name}")


@dataclass(frozen=True, eq=False)
class RayGrid:
    """Ray of every pixel, scaled to depth 1: (x, y, 1). Arrays are read-only and shared.

    Attributes:
        x: (1, W) float32. y: (H, 1) float32.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]

    @cached_property
    def length(self) -> NDArray[np.float32]:
        """(H, W) float32 distance from the camera per metre of depth, ≥ 1."""
        length = np.sqrt(self.x * self.x + (self.y * self.y + np.float32(1)))
        length.flags.writeable = False
        return length

    def points(self, pixels: NDArray[np.intp], z: NDArray[np.float32]) -> NDArray[np.float32]:
        """(3, N) float32 x y z of N flat pixel indices at depths z (N,)."""
        row, column = np.divmod(pixels, self.x.size)
        return np.stack([self.x[0, column] * z, self.y[row, 0] * z, z])


@lru_cache(maxsize=8)
def ray_grid(intrinsics: Intrinsics) -> RayGrid:
    """Rays of a camera; kept for the cameras seen last.

    Raises:
        ValueError: focal lengths, principal point or size are not those of an image.
    """
    k = intrinsics
    require((
        ("camera_info fx, fy", (k.fx_px, k.fy_px), all(1 <= f < 1e6 for f in (k.fx_px, k.fy_px)),
         "from 1 to 1e6 px"),
        ("camera_info cx, cy", (k.cx_px, k.cy_px), all(abs(c) < 1e6 for c in (k.cx_px, k.cy_px)),
         "within 1e6 px"),
        ("camera_info width, height", (k.width_px, k.height_px),
         min(k.width_px, k.height_px) >= 1, "at least 1 px")))
    x = ((np.arange(k.width_px) - k.cx_px) / k.fx_px).astype(np.float32)[None]
    y = ((np.arange(k.height_px) - k.cy_px) / k.fy_px).astype(np.float32)[:, None]
    x.flags.writeable = y.flags.writeable = False
    return RayGrid(x, y)


def check_sizes(intrinsics: Intrinsics, **images: NDArray[np.generic] | None) -> None:
    """Raise ValueError unless all images have the size of the intrinsics."""
    size = (intrinsics.height_px, intrinsics.width_px)
    for name, image in images.items():
        if image is not None and image.shape[:2] != size:
            raise ValueError(f"{name} = image of shape {image.shape}: must be {size[0]} rows by "
                             f"{size[1]} columns as its intrinsics; use Intrinsics.resized")


def confident(depth_m: NDArray[np.float32], sigma_m: NDArray[np.float32],
              provenance: NDArray[np.uint8], max_sigma_ratio: float,
              use_prior_only: bool = False) -> NDArray[np.bool_]:
    """(H, W) pixels MEASURED or FUSED (or PRIOR_ONLY) with depth > 0 m and known σ ≤ ratio·Z."""
    sure = (provenance == Provenance.MEASURED) | (provenance == Provenance.FUSED)
    if use_prior_only:
        sure |= provenance == Provenance.PRIOR_ONLY
    with np.errstate(over="ignore", invalid="ignore"):
        sure &= (depth_m > 0) & (depth_m < FARTHEST_M)
        sure &= (sigma_m >= 0) & (sigma_m <= max_sigma_ratio * depth_m)
    return np.asarray(sure, np.bool_)


def far_by_evidence(depth_m: NDArray[np.float32],
                    provenance: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(H, W) pixels seen to be farther than the maximum: +Inf that is not said to be a guess.

    Estimators label +Inf OUT_OF_RANGE, which is allowed here; on a finite depth it is not.
    """
    seen = (provenance == Provenance.MEASURED) | (provenance == Provenance.FUSED)
    seen |= provenance == Provenance.OUT_OF_RANGE
    return np.asarray(seen & (depth_m == np.inf), np.bool_)
