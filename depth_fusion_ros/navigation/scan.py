"""A planar scan from a depth image, as the numbers of a LaserScan: the one way +Inf clears in Nav2.

    scan = level_scan(depth_m, sigma_m, provenance, intrinsics, LEVEL_FROM_OPTICAL, ScanOptions())

LaserScan is the only input with which Nav2 takes +Inf as free (`inf_is_valid: true`), so +Inf is
said only of what was seen to be free, and what is not known is NaN (REP-117).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from depth_fusion_ros.estimation.estimate import Intrinsics
from depth_fusion_ros.navigation.rays import (
    FARTHEST_M,
    check_sizes,
    confident,
    far_by_evidence,
    ray_grid,
    require,
)

__all__ = ["LEVEL_FROM_OPTICAL", "Scan", "ScanOptions", "level_scan"]

LEVEL_FROM_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""Rotation of a camera that looks straight ahead: x forward, y left, z up (REP-103)."""


@dataclass(frozen=True)
class ScanOptions:
    """What a scan looks at.

    Attributes:
        min_height_m, max_height_m: the band of heights that matters, m. camera_height_m: of the
            camera on the same scale; with 0 the band is relative to the camera.
        range_min_m: obstacles nearer than this become −Inf. range_max_m: how far the scan looks,
            m in the plane; where +Inf is to clear, not above the estimate's own maximum.
        min_m: smallest depth that the estimate reports, m: −Inf pixels are nearer.
        angle_min_rad, angle_max_rad: centres of the first and the last bin at most, 0 = ahead,
            left is positive; None = what the image shows. Set both where the level is measured
            anew for each frame, so that all scans have one length.
        angle_increment_rad: width of a bin. Bins narrower than a pixel have gaps of NaN.
        max_sigma_ratio: σ/Z above which a depth counts as unknown.

    Raises:
        ValueError: a value outside its range; the text names it, the rule and the remedy.
    """

    min_height_m: float = -0.1
    max_height_m: float = 0.1
    camera_height_m: float = 0.0
    range_min_m: float = 0.15
    range_max_m: float = 8.0
    min_m: float = 0.15
    angle_min_rad: float | None = None
    angle_max_rad: float | None = None
    angle_increment_rad: float = math.radians(0.5)
    max_sigma_ratio: float = 0.15

    def __post_init__(self) -> None:
        lowest, highest = self.angle_min_rad, self.angle_max_rad
        first = -math.pi if lowest is None else lowest
        require((
            ("scan.min_height_m", self.min_height_m, math.isfinite(self.min_height_m), "finite"),
            ("scan.max_height_m", self.max_height_m,
             self.min_height_m < self.max_height_m < math.inf,
             "finite and above scan.min_height_m"),
            ("scan.camera_height_m", self.camera_height_m, math.isfinite(self.camera_height_m),
             "finite"),
            ("scan.range_min_m", self.range_min_m, 0 < self.range_min_m < math.inf,
             "finite and > 0"),
            ("scan.range_max_m", self.range_max_m,
             self.range_min_m < self.range_max_m < FARTHEST_M,
             "above scan.range_min_m and below 1e6 m"),
            ("depth.min_m", self.min_m, 0 < self.min_m < math.inf, "finite and > 0"),
            ("scan.angle_min_rad", lowest, -math.pi <= first < math.pi, "from -pi to pi"),
            ("scan.angle_max_rad", highest, highest is None or first <= highest <= math.pi,
             "from scan.angle_min_rad to pi"),
            ("scan.angle_increment_rad", self.angle_increment_rad,
             1e-4 <= self.angle_increment_rad <= math.pi, "from 0.0001 to pi"),
            ("scan.max_sigma_ratio", self.max_sigma_ratio, 0 < self.max_sigma_ratio <= 1,
             "above 0 and at most 1")))


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan in the levelled frame of the camera, the fields of a LaserScan.

    Attributes:
        angle_min_rad, angle_max_rad: centres of the first and the last bin, left is positive.
        angle_increment_rad: from bin to bin.
        range_min_m, range_max_m: of the finite ranges.
        ranges_m: (N,) float32 m in the plane. +Inf = seen to be free up to range_max_m, −Inf =
            something nearer than range_min_m or than the estimate can tell, NaN = not known.
    """

    angle_min_rad: float
    angle_max_rad: float
    angle_increment_rad: float
    range_min_m: float
    range_max_m: float
    ranges_m: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Fan:
    """What does not change while camera, mounting and options stay. Images are (H, W).

    Attributes:
        angle_min_rad: centre of the first bin.
        bins: intp bin of each pixel.
        planar: float32 metres in the plane per metre of depth.
        enter_m, leave_m: float32 depths between which the ray is within the band and the range.
        band: bool, rays that have such depths, in a bin of the scan.
        rays: (N,) such rays of each bin.
    """

    angle_min_rad: float
    bins: NDArray[np.intp]
    planar: NDArray[np.float32]
    enter_m: NDArray[np.float32]
    leave_m: NDArray[np.float32]
    band: NDArray[np.bool_]
    rays: NDArray[np.intp]


def level_scan(depth_m: NDArray[np.float32], sigma_m: NDArray[np.float32],
               provenance: NDArray[np.uint8], intrinsics: Intrinsics,
               level_from_optical: ArrayLike, options: ScanOptions) -> Scan:
    """Nearest obstacle per direction among all pixels of a band of heights.

    A ray belongs to the band where it is between min_height_m and max_height_m and no farther
    than range_max_m in the plane. Each bin of directions is

    - −Inf if a confident point in the band is nearer than range_min_m, or a −Inf pixel may be;
    - else the least planar range of the confident points in the band;
    - else +Inf if all rays of the bin that cross the band were seen to be free of obstacles
      there: confidently measured behind where they leave it (the floor, or beyond range_max_m),
      or +Inf by evidence. One unknown ray is enough for NaN: it may hide what clearing removes;
    - else NaN.

    Args:
        depth_m, sigma_m: (H, W) float32 m. provenance: (H, W) uint8, values of `Provenance`;
            only MEASURED and FUSED are relied on, and OUT_OF_RANGE where depth is +Inf.
        intrinsics: of the depth image.
        level_from_optical: (3, 3) rotation from the optical frame to z up, x forward, y left; of
            a camera that looks straight ahead `LEVEL_FROM_OPTICAL`.

    Returns:
        Ranges from the camera, never 0.

    Raises:
        ValueError: images and intrinsics differ in size, or the matrix is no rotation.
    """
    check_sizes(intrinsics, depth_m=depth_m, sigma_m=sigma_m, provenance=provenance)
    rotation = np.asarray(level_from_optical, np.float64)
    if not (rotation.shape == (3, 3) and np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3)
            and np.linalg.det(rotation) > 0):
        raise ValueError(f"level_from_optical = {rotation.tolist()}: must be a 3x3 rotation; take "
                         "it from TF, from the optical frame to a frame with z up and x forward")
    fan = _fan(intrinsics, tuple(rotation.ravel().tolist()), options)
    sure = fan.band & confident(depth_m, sigma_m, provenance, options.max_sigma_ratio)
    with np.errstate(invalid="ignore"):
        inside = sure & (depth_m >= fan.enter_m) & (depth_m <= fan.leave_m)
        beyond = sure & (depth_m > fan.leave_m)
    too_near = fan.band & np.isneginf(depth_m) & (fan.enter_m < options.min_m)
    free = beyond | (fan.band & far_by_evidence(depth_m, provenance))

    ranges = np.minimum(depth_m[inside] * fan.planar[inside], np.float32(options.range_max_m))
    ranges[ranges < options.range_min_m] = -np.inf
    nearest = np.full(len(fan.rays), np.inf, np.float32)
    np.minimum.at(nearest, fan.bins[inside], ranges)
    nearest[fan.bins[too_near]] = -np.inf
    unknown = np.bincount(fan.bins[free], minlength=len(fan.rays)) < np.maximum(fan.rays, 1)
    nearest[(nearest == np.inf) & unknown] = np.nan
    last = fan.angle_min_rad + (len(nearest) - 1) * options.angle_increment_rad
    return Scan(fan.angle_min_rad, last, options.angle_increment_rad, options.range_min_m,
                options.range_max_m, nearest)


@lru_cache(maxsize=2)
def _fan(intrinsics: Intrinsics, rotation: tuple[float, ...], options: ScanOptions) -> _Fan:
    rays = ray_grid(intrinsics)
    to_level = np.array(rotation).reshape(3, 3)
    forward, left, up = _turned(to_level, rays.x, rays.y)
    planar = np.hypot(forward, left)
    # A level ray is in the band all along or not at all; so is one that climbs 1 nm a kilometre.
    climb = np.where(np.abs(up) < 1e-12, 1e-12, up)
    crossings = [(height - options.camera_height_m) / climb
                 for height in (options.min_height_m, options.max_height_m)]
    enter = np.maximum(np.minimum(*crossings), 0)
    with np.errstate(divide="ignore"):
        leave = np.minimum(np.maximum(*crossings), options.range_max_m / planar)

    azimuth = np.arctan2(left, forward)
    step = options.angle_increment_rad
    lowest, highest = _seen_angles(intrinsics, to_level)
    first = lowest + step / 2 if options.angle_min_rad is None else options.angle_min_rad
    if options.angle_max_rad is None:  # the last bin reaches the edge of the image
        steps = math.ceil((highest - first) / step - 0.5 - 1e-6)
    else:
        steps = math.floor((options.angle_max_rad - first) / step + 1e-6)
    count = max(steps, 0) + 1
    bins = np.floor((azimuth - first) / step + 0.5)
    band = (enter <= leave) & (leave > 0) & (bins >= 0) & (bins < count)
    bins = np.clip(bins, 0, count - 1).astype(np.intp)
    return _Fan(first, bins, planar.astype(np.float32), enter.astype(np.float32),
                leave.astype(np.float32), band, np.bincount(bins[band], minlength=count))


def _turned(to_level: NDArray[np.float64], x: NDArray[np.floating],
            y: NDArray[np.floating]) -> list[NDArray[np.float64]]:
    """Forward, left and up of rays (x, y, 1) in the levelled frame."""
    return [row[0] * x + row[1] * y + row[2] for row in to_level]


def _seen_angles(intrinsics: Intrinsics, to_level: NDArray[np.float64]) -> tuple[float, float]:
    """Least and greatest azimuth on the edge of the image, within which all others lie."""
    k = intrinsics
    across = np.linspace(-0.5, k.width_px - 0.5, k.width_px + 1)
    down = np.linspace(-0.5, k.height_px - 0.5, k.height_px + 1)
    columns = np.concatenate([across, across, np.full_like(down, across[0]),
                              np.full_like(down, across[-1])])
    rows = np.concatenate([np.full_like(across, down[0]), np.full_like(across, down[-1]),
                           down, down])
    forward, left, _ = _turned(to_level, (columns - k.cx_px) / k.fx_px,
                               (rows - k.cy_px) / k.fy_px)
    azimuth = np.arctan2(left, forward)
    return float(azimuth.min()), float(azimuth.max())
