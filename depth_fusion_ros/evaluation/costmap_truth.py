"""What a costmap should show, from true depth: cells with a surface, open cells, the subject's.

Cells are (rows along y, columns along x) of a `VoxelCostmap`. The band is the heights at which a
source marks in it: its own limits and those of the layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.navigation.costmap import VoxelCostmap
from depth_fusion_ros.navigation.costmap_config import SourceConfig
from depth_fusion_ros.navigation.rays import ray_grid
from depth_fusion_ros.optics.intrinsics import Intrinsics

OPEN_CELLS = 1
"""A cell this near to a true surface is not called open."""
_RAYS_ACROSS = 80
_SAMPLES_PER_CELL = 2

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
SubjectMask = Callable[[NDArray[np.float32]], Bools]
"""(H, W) bool: pixels of a true depth (H, W), metres, that are the subject of a scene."""


@dataclass(frozen=True)
class TrueCells:
    """Truth of one frame; pixels are of the truth image, all else is (rows, columns) of cells.

    Attributes:
        subject_pixels: (H, W) bool.
        surface: a true surface in the band is in the cell. in_reach: and from obstacle_min_range
            to obstacle_max_range away.
        is_open: crossed by a true ray within the band and obstacle_max_range, and no surface is
            within `OPEN_CELLS` cells.
        subject: surface cells of the subject that are in reach.
    """

    subject_pixels: Bools
    surface: Bools
    in_reach: Bools
    is_open: Bools
    subject: Bools


def camera_pose(height_m: float) -> Floats:
    """Return (4, 4) global from optical frame, of a camera that looks along x, `height_m` up."""
    return np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, height_m], [0, 0, 0, 1.0]])


def true_cells(
    truth_m: NDArray[np.float32], intrinsics: Intrinsics, on_subject: SubjectMask | None,
    costmap: VoxelCostmap, marks: SourceConfig, pose: Floats,
) -> TrueCells:
    """Put a true depth (H, W), metres, into the cells of a costmap.

    NaN is not known: no surface, and its ray opens nothing. A ray of +Inf is open as far as marks
    reach.

    Args:
        intrinsics: of the depth. on_subject: see `SubjectMask`; None = there is no subject.
        marks: source whose band and range count. pose: (4, 4) global from optical frame.
    """
    rays = ray_grid(intrinsics)
    directions = np.stack(np.broadcast_arrays(rays.x, rays.y, np.float32(1)), -1)
    directions = directions.astype(np.float64) @ pose[:3, :3].T  # per metre of depth
    range_m = truth_m * rays.length
    pixels = np.zeros(truth_m.shape, bool) if on_subject is None else on_subject(truth_m)

    with np.errstate(invalid="ignore"):  # 0 · Inf
        points = pose[:3, 3] + directions * truth_m[..., None]
    in_band = _in_band(points, costmap, marks)
    reached = in_band & (range_m < marks.obstacle_max_range_m)
    reached &= range_m >= marks.obstacle_min_range_m
    surface = _cells_of(points[in_band], costmap)

    stride = max(1, truth_m.shape[1] // _RAYS_ACROSS)
    step_m = costmap.config.resolution_m / _SAMPLES_PER_CELL
    along_m = np.arange(step_m, marks.obstacle_max_range_m, step_m)
    some = (slice(None, None, stride), slice(None, None, stride))
    on_ray = along_m < range_m[some][..., None]
    units = (directions / rays.length[..., None])[some]
    samples = pose[:3, 3] + units[..., None, :] * along_m[:, None]
    seen = _cells_of(samples[on_ray & _in_band(samples, costmap, marks)], costmap)
    return TrueCells(
        pixels, surface, _cells_of(points[reached], costmap), seen & ~grown(surface, OPEN_CELLS),
        _cells_of(points[reached & pixels], costmap))


def grown(cells: Bools, by_cells: int) -> Bools:
    """Return the cells and their neighbours up to `by_cells` away, diagonals included."""
    kernel = np.ones((2 * by_cells + 1,) * 2, np.uint8)
    return np.asarray(cv2.dilate(cells.astype(np.uint8), kernel) > 0, np.bool_)


def largest_distance_m(cells: Bools, surface: Bools, resolution_m: float) -> float:
    """Largest distance of one of `cells` from the nearest of `surface`, 0 where either is empty."""
    if not cells.any() or not surface.any():
        return 0.0
    distances = cv2.distanceTransform((~surface).astype(np.uint8), cv2.DIST_L2, 5)
    return float(distances[cells].max()) * resolution_m


def points_in_front(
    points: NDArray[np.float32], truth_m: NDArray[np.float32], on_subject: Bools,
    intrinsics: Intrinsics, sigmas: float,
) -> int:
    """Count points on the subject that are nearer than its true depth by more than `sigmas` σ.

    Args:
        points: (N, 4) finite x, y, z, σ, metres, optical frame. on_subject: (H, W) pixels.
        truth_m: (H, W) true depth.
    """
    rows, columns, kept = _pixels_of(points, intrinsics)
    nearer = points[kept, 2] < truth_m[rows, columns] - sigmas * points[kept, 3]
    return int((nearer & on_subject[rows, columns]).sum())


def rays_through(
    ends: NDArray[np.float32], truth_m: NDArray[np.float32], intrinsics: Intrinsics, pose: Floats,
    clears: SourceConfig, stop_short_m: float,
) -> int:
    """Count rays that clear beyond the true surface of their pixel.

    Args:
        ends: (N, 3…) finite x, y, z, metres, optical frame. truth_m: (H, W) true depth.
        clears: source that takes them; ends outside its heights are dropped, as in Nav2.
        stop_short_m: rays clear up to here before their end.
    """
    rows, columns, kept = _pixels_of(ends, intrinsics)
    points = ends[kept, :3].astype(np.float64)
    height_m = points @ pose[2, :3] + pose[2, 3]
    used = height_m >= clears.min_obstacle_height_m
    used &= height_m <= clears.max_obstacle_height_m
    true_range_m = (truth_m * ray_grid(intrinsics).length)[rows, columns]
    reach_m = np.minimum(np.linalg.norm(points, axis=1) - stop_short_m, clears.raytrace_max_range_m)
    return int((used & (reach_m > true_range_m)).sum())


def _in_band(points_m: Floats, costmap: VoxelCostmap, marks: SourceConfig) -> Bools:
    low_m = max(marks.min_obstacle_height_m, costmap.layer.min_obstacle_height_m)
    high_m = min(marks.max_obstacle_height_m, costmap.layer.max_obstacle_height_m)
    height_m = points_m[..., 2]
    return np.asarray((height_m >= low_m) & (height_m <= high_m), np.bool_)


def _cells_of(points_m: Floats, costmap: VoxelCostmap) -> Bools:
    """Return the cells (H, W) that have one of the points (N, 3) of the global frame."""
    shape = (costmap.config.height_cells, costmap.config.width_cells)
    places = np.floor((points_m[:, :2] - costmap.origin_m[:2]) / costmap.config.resolution_m)
    columns, rows = places.astype(np.int64).T
    inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    cells = np.zeros(shape, bool)
    cells[rows[inside], columns[inside]] = True
    return cells


def _pixels_of(points_m: NDArray[np.float32], intrinsics: Intrinsics
               ) -> tuple[NDArray[np.intp], NDArray[np.intp], Bools]:
    """Return rows and columns of the pixels that points (N, 3…) in the optical frame are seen at.

    Those in front of the camera and within the image only: the third, (N,) bool, says which.
    """
    k, (x, y, z) = intrinsics, points_m[:, :3].astype(np.float64).T
    depth = np.where(z > 0, z, 1.0)
    columns = np.rint(x / depth * k.fx_px + k.cx_px)
    rows = np.rint(y / depth * k.fy_px + k.cy_px)
    kept = (z > 0) & (rows >= 0) & (rows < k.height_px) & (columns >= 0) & (columns < k.width_px)
    return rows[kept].astype(np.intp), columns[kept].astype(np.intp), np.asarray(kept, np.bool_)
