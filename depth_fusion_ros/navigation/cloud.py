"""Clouds from a depth image, as the bytes of a PointCloud2: arrays in, bytes out, no ROS.

    organised_points(depth_m, sigma_m, rgb, intrinsics)                      -> array('B')
    obstacle_points(depth_m, sigma_m, provenance, intrinsics, CloudOptions()) -> CloudBytes
    clearing_points(depth_m, sigma_m, provenance, intrinsics, CloudOptions()) -> CloudBytes

All points are float32 metres in the optical frame of the depth image: x right, y down, z forward
(REP-103). Depth is along z; NaN = unknown, +Inf = too far, −Inf = too near (REP-117, REP-118).

Two clouds for Nav2, because its observation buffer drops NaN and Inf of a PointCloud2: an empty
corridor would never clear. One source marks with the obstacles, another clears with ray ends.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.estimation.estimate import Intrinsics
from depth_fusion_ros.navigation.cloud_options import OBSTACLE_STEP_BYTES, CloudOptions
from depth_fusion_ros.navigation.rays import (
    RayGrid,
    check_sizes,
    confident,
    far_by_evidence,
    ray_grid,
)
from depth_fusion_ros.navigation.squares import LOW_32, least_per_square, ranked
from depth_fusion_ros.navigation.surer import behind_surer
from depth_fusion_ros.navigation.veil import is_veil

__all__ = ["CloudBytes", "CloudOptions", "RayGrid", "clearing_points", "is_blind",
           "obstacle_points", "organised_points", "ray_grid"]

ORGANISED_STEP_BYTES = 24  # x y z rgb sigma and 4 bytes of padding
CLEARING_STEP_BYTES = 12  # x y z

_GREY = 0x00808080
_BLOCK_PX = 1 << 16  # its planes and points stay in a cache of 2 MiB
_PLANES_TO_FIELDS = [number for field in range(5) for number in (field, field)]
_CELL_BITS = 18  # voxels from the camera to the edge of the grid, per axis, as a power of two


@dataclass(frozen=True)
class CloudBytes:
    """An unorganised cloud, all finite: PointCloud2 of height 1, little-endian, ``is_dense``.

    Attributes:
        data: the points, float32; whoever receives it owns it.
        count: points. step_bytes: bytes of one.
        voxel_m: edge of the smallest voxel used, m; NaN = not thinned by voxels.
        thinned: points that qualified and were left out.
        veil, floor, behind: points that were sure enough, but a veil between near and far, maybe
            floor, or vague and just behind a surer one.
    """

    data: array[int]
    count: int
    step_bytes: int
    voxel_m: float = math.nan
    thinned: int = 0
    veil: int = 0
    floor: int = 0
    behind: int = 0


def organised_points(depth_m: NDArray[np.float32], sigma_m: NDArray[np.float32],
                     rgb: NDArray[np.uint8] | None, intrinsics: Intrinsics) -> array[int]:
    """Data of an organised cloud: x y z rgb sigma at 0 4 8 12 16, 24 bytes a point, row by row.

    Args:
        depth_m: (H, W) float32 m; where it is not finite, or 0, x y z and sigma become NaN.
        sigma_m: (H, W) float32, 1σ in m.
        rgb: (H, W, 3) uint8 on the same grid, packed as 0x00RRGGBB; None = mid grey.
        intrinsics: of the depth image.

    Returns:
        array('B') of H·W·24 bytes, little-endian, for PointCloud2.data; the caller owns it. An
        array, because assigning bytes to a message checks them one by one on some distributions.

    Raises:
        ValueError: images and intrinsics differ in size.
    """
    check_sizes(intrinsics, depth_m=depth_m, sigma_m=sigma_m, rgb=rgb)
    rays = ray_grid(intrinsics)
    height, width = depth_m.shape
    data: array[int] = array("B", [0]) * (height * width * ORGANISED_STEP_BYTES)
    points = np.frombuffer(data, np.float32).reshape(height, width, ORGANISED_STEP_BYTES // 4)
    rows = min(height, max(1, _BLOCK_PX // width))
    planes = np.empty((5, rows, width), np.float32)
    colours = np.full((rows, width), _GREY, np.uint32)
    for top in range(0, height, rows):
        block = slice(top, min(top + rows, height))
        depth = depth_m[block]
        x, y, z, _, sigma = planes[:, :len(depth)]
        colour = colours[:len(depth)]
        # depth/depth is 1 or NaN: several times faster than np.where on a ragged mask.
        with np.errstate(invalid="ignore"):
            known = np.divide(depth, depth, out=sigma)
            np.multiply(depth, known, out=z)
        np.multiply(sigma_m[block], known, out=sigma)
        np.multiply(rays.x, z, out=x)
        np.multiply(rays.y[block], z, out=y)
        if rgb is not None:
            cv2.cvtColor(np.ascontiguousarray(rgb[block]), cv2.COLOR_RGB2BGRA,
                         dst=colour.view(np.uint8).reshape(*colour.shape, 4))
            np.bitwise_and(colour, 0x00FFFFFF, out=colour)
        # NumPy would visit every cache line of the points once per field.
        cv2.mixChannels([x, y, z, colour.view(np.float32), sigma], [points[block]],
                        _PLANES_TO_FIELDS)
    return data


def obstacle_points(depth_m: NDArray[np.float32], sigma_m: NDArray[np.float32],
                    provenance: NDArray[np.uint8], intrinsics: Intrinsics,
                    options: CloudOptions) -> CloudBytes:
    """Points to mark obstacles with: x y z sigma, 16 bytes a point, one per voxel.

    Of the `confident` pixels those that are no veil (`is_veil`), cannot be floor (`Floor`), and are
    not the vague rest of a surface whose surer points mark (`behind_surer`).

    The edge of a point's voxel is max(voxel_m, voxel_sigma_scale·σ), rounded down to voxel_m times
    a power of two, and points of different edges do not share voxels: unsure points thin each
    other, never sure ones. The point kept is the one nearest to the camera, as measured: a mean
    may hang in the air where nothing is, and lets the robot come closer than what was measured.
    While the cloud exceeds max_bytes the smallest edge is doubled. Voxels nest, so a point that
    was nearest stays the candidate, and a thin pole is thinned like anything else but never
    merged into what stands behind it. In the largest voxels four points are left, which fit.

    Args:
        depth_m, sigma_m: (H, W) float32 m; NaN and ±Inf give no point.
        provenance: (H, W) uint8, values of `Provenance`. intrinsics: of the depth image.

    Returns:
        Points in the order of their pixels, all finite. Beyond 2^18 voxels from the camera (13 km
        at 5 cm) points share the outermost voxel.

    Raises:
        ValueError: images and intrinsics differ in size.
    """
    check_sizes(intrinsics, depth_m=depth_m, sigma_m=sigma_m, provenance=provenance)
    rays = ray_grid(intrinsics)
    sure = confident(depth_m, sigma_m, provenance, options.max_sigma_ratio,
                     options.use_prior_only)
    veil = sure & is_veil(depth_m, intrinsics, options.max_incidence_deg)
    pixels = np.flatnonzero(sure & ~veil)
    points = rays.points(pixels, depth_m.ravel()[pixels])
    sigma = sigma_m.ravel()[pixels]
    qualified = len(pixels)
    if options.floor.camera_height_m:
        stands = ~options.floor.may_have(points, sigma)
        pixels, points, sigma = pixels[stands], points[:, stands], sigma[stands]
    standing = len(pixels)
    # Only now: what does not mark itself, such as floor before a box, speaks for nothing behind it.
    marks = ~behind_surer(pixels, points[2], sigma, depth_m.shape, options.surer_square_px)
    pixels, points, sigma = pixels[marks], points[:, marks], sigma[marks]
    edge = 1 << _CELL_BITS
    cells = np.clip(np.floor(points / options.voxel_m), -edge, edge - 1).astype(np.int32)
    # frexp splits into a fraction in [1/2, 1) and an exponent: that less one is floor(log2).
    exponents = np.frexp(sigma * (options.voxel_sigma_scale / options.voxel_m))[1] - 1
    levels = np.clip(exponents, 0, _CELL_BITS)
    nearness = ranked(points[0] ** 2 + points[1] ** 2 + points[2] ** 2, np.arange(len(pixels)))
    left: NDArray[np.intp] | slice = slice(None)
    for level in range(_CELL_BITS + 1):
        left = kept = _nearest_per_voxel(cells[:, left], np.maximum(levels[left], level),
                                         nearness[left])
        if kept.size * OBSTACLE_STEP_BYTES <= options.max_bytes:
            break
    kept.sort()
    return _cloud([*points[:, kept], sigma[kept]], voxel_m=options.voxel_m * 2**level,
                  thinned=len(pixels) - len(kept), veil=int(np.count_nonzero(veil)),
                  floor=qualified - standing, behind=standing - len(pixels))


def is_blind(depth_m: NDArray[np.float32], sigma_m: NDArray[np.float32],
             provenance: NDArray[np.uint8], options: CloudOptions) -> bool:
    """Whether no pixel could mark and none was seen to be far: vague depth alone is no sight.

    Clearing rays of such a frame would keep a costmap current that no obstacle can get into.
    """
    return not (confident(depth_m, sigma_m, provenance, options.max_sigma_ratio,
                          options.use_prior_only).any()
                or far_by_evidence(depth_m, provenance).any())


def clearing_points(depth_m: NDArray[np.float32], sigma_m: NDArray[np.float32],
                    provenance: NDArray[np.uint8], intrinsics: Intrinsics,
                    options: CloudOptions) -> CloudBytes:
    """Ends of rays that were seen to be free, to clear obstacles with: x y z, 12 bytes a point.

    A pixel has an end at Z − 2σ if it is `confident` (never by a prior alone, up to
    clearing_max_sigma_ratio) and that is more than min_m, and at clearing_range_m along its ray if
    it is +Inf by evidence; no end is farther than that. Of each square of clearing_stride pixels
    the nearest end counts, along its own pixel's ray, so that the background beside a thin obstacle
    does not clear it away. The square gives no ray at all where something nearer may be in it: a
    −Inf pixel, or a finite one without an end (unsure label, large or unknown σ, too near) whose Z
    − 2σ is nearer than the end or unknown. Cutting the ray there instead would trust a depth that
    is not to be trusted. NaN pixels neither clear nor forbid.

    Args:
        depth_m, sigma_m: (H, W) float32 m. provenance: (H, W) uint8, values of `Provenance`.
        intrinsics: of the depth image.

    Raises:
        ValueError: images and intrinsics differ in size.
    """
    check_sizes(intrinsics, depth_m=depth_m, sigma_m=sigma_m, provenance=provenance)
    rays = ray_grid(intrinsics)
    stride, inf = _fitting_stride(depth_m.shape, options), np.float32(np.inf)
    limit = np.float32(options.clearing_range_m) / rays.length
    far = far_by_evidence(depth_m, provenance)
    with np.errstate(invalid="ignore", over="ignore"):
        near = depth_m - 2 * sigma_m
        sure = confident(depth_m, sigma_m, provenance, options.clearing_max_sigma_ratio)
        sure &= near > options.min_m
        reach = near * rays.length
        end_z = np.where(far, limit, np.minimum(near, limit))
        end = np.where(sure | far, end_z * rays.length, inf)
    doubtful = (np.isfinite(depth_m) & ~sure) | np.isneginf(depth_m)
    hidden = np.where(doubtful, reach, inf)  # unknown stays NaN, and its square's least is NaN

    pixels = np.arange(depth_m.size).reshape(depth_m.shape)
    nearest = least_per_square(ranked(end, pixels), stride).ravel()
    length = (nearest >> np.uint64(32)).astype(np.uint32).view(np.float32)
    free = (length < inf) & (least_per_square(hidden, stride).ravel() >= length)
    ends = (nearest[free] & LOW_32).astype(np.intp)
    return _cloud(list(rays.points(ends, end_z.ravel()[ends])),
                  thinned=int(np.count_nonzero(sure | far)) - len(ends))


def _fitting_stride(shape: tuple[int, ...], options: CloudOptions) -> int:
    """Smallest side of squares, not under the option, of which one ray each fits the budget."""
    stride = options.clearing_stride
    while math.prod(-(-side // stride) for side in shape) * CLEARING_STEP_BYTES > options.max_bytes:
        stride += 1
    return stride


def _nearest_per_voxel(cells: NDArray[np.int32], levels: NDArray[np.int32],
                       nearness: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Index (in the low half of `nearness`) of the nearest of each voxel of side 2^level cells."""
    voxels = levels.astype(np.int64)
    for axis, bits in zip(cells, (_CELL_BITS + 1, _CELL_BITS + 1, _CELL_BITS)):
        voxels <<= bits
        voxels += (axis >> levels) & ((1 << bits) - 1)
    # Pixel neighbours share voxels, so most points go before the sort, which is what takes time.
    for order in (None, np.argsort):
        if order is not None:
            by_voxel = order(voxels)
            voxels, nearness = voxels[by_voxel], nearness[by_voxel]
        starts = np.flatnonzero(np.diff(voxels, prepend=-1))
        voxels, nearness = voxels[starts], np.minimum.reduceat(nearness, starts)
    return (nearness & LOW_32).astype(np.intp)


def _cloud(fields: Sequence[NDArray[np.float32]], *, voxel_m: float = math.nan,
           thinned: int = 0, veil: int = 0, floor: int = 0, behind: int = 0) -> CloudBytes:
    points = np.stack(fields, axis=1).astype(np.float32, copy=False)
    return CloudBytes(array("B", points.tobytes()), len(points), 4 * points.shape[1], voxel_m,
                      thinned, veil, floor, behind)
