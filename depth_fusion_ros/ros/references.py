"""What is known of the true depth of a bag's frames: another depth topic, a plane, or a LiDAR.

    reference = TopicReference(bag, "ground_truth/depth")
    truth_m = reference.at(stamp_ns, estimate)          # on the estimate's grid, or None

Each answers with (H, W) float32 metres along the optical axis on the grid of the estimate, NaN
where it does not know, or None where it has nothing for this frame.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.bags import topics as names
from depth_fusion_ros.bags.clouds import cloud_array
from depth_fusion_ros.bags.images import stamp_ns
from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.bags.transforms import BagTransforms
from depth_fusion_ros.bags.typestore import BagError
from depth_fusion_ros.estimation.estimate import DepthEstimate, Intrinsics
from depth_fusion_ros.navigation.rays import ray_grid
from depth_fusion_ros.ros.messages import InputError, camera_info_to_intrinsics, image_to_array

DEPTH_ENCODINGS = ("32FC1", "16UC1", "mono16")
_MILLIMETRE_M = 0.001
OCCLUSION_PX = 3
"""Points of a LiDAR hide what lies behind them in a square of this radius round them: its rays pass
beside edges that the camera, which sits elsewhere, sees in front."""
OCCLUSION_RATIO = 1.05

Depth = NDArray[np.float32]


class Reference(Protocol):
    """A source of true depth."""

    def at(self, wanted_ns: int, estimate: DepthEstimate) -> Depth | None:
        """Truth for a frame; calls come in the order of stamps."""
        ...


class _ByStamp:
    """Messages of one topic, asked for by rising stamps; holds only what may still be wanted."""

    def __init__(self, bag: BagReader, topic: str, type_name: str, tolerance_s: float) -> None:
        known = {summary.name: summary for summary in bag.topics}
        found = known.get(topic)
        if found is None or not found.message_count:
            raise BagError(f"bag {bag.path}: reference topic {topic} is not recorded, only "
                           f"{', '.join(known) or 'no topics'}; choose one with --reference")
        if found.type_name != type_name:
            raise BagError(f"bag {bag.path}: reference topic {topic} is {found.type_name}, must "
                           f"be {type_name}; choose another with --reference")
        self.topic = topic
        self._messages: Iterator[tuple[str, int, Any]] = bag.messages([topic])
        self._held: deque[tuple[int, Any]] = deque()
        self._tolerance_ns = round(tolerance_s * 1e9)

    def nearest(self, wanted_ns: int) -> tuple[int, Any] | None:
        """(stamp, message) nearest to a stamp, within the tolerance."""
        limit_ns = wanted_ns + self._tolerance_ns
        while not self._held or self._held[-1][0] < limit_ns:
            _, _, message = next(self._messages, (None, None, None))
            if message is None:
                break
            self._held.append((stamp_ns(message), message))
        while self._held and self._held[0][0] < wanted_ns - self._tolerance_ns:
            self._held.popleft()
        found = min(self._held, key=lambda item: abs(item[0] - wanted_ns), default=None)
        return found if found and abs(found[0] - wanted_ns) <= self._tolerance_ns else None


class TopicReference:
    """Another depth image in the same bag, of a camera at the same place.

    Brought onto the estimate's grid with the nearest pixel: through both intrinsics where its
    camera_info is recorded beside it, else as the same field of view in another size. 32FC1 are
    metres, 16UC1 millimetres; 0 is unknown (REP-118).

    Args:
        bag: open. topic: absolute, or relative to the namespace. tolerance_s: largest difference of
            stamps.

    Raises:
        BagError: the topic is not there or no image.
    """

    def __init__(self, bag: BagReader, topic: str, *, namespace: str = names.DEFAULT_NAMESPACE,
                 tolerance_s: float = 0.0) -> None:
        absolute = names.resolve(namespace, topic)
        self._images = _ByStamp(bag, absolute, "sensor_msgs/msg/Image", tolerance_s)
        self._intrinsics: Intrinsics | None = None
        info_topic = absolute.rsplit("/", 1)[0] + "/camera_info"
        if info_topic in {summary.name for summary in bag.topics if summary.message_count}:
            self._info: Any = next(message for _, _, message in bag.messages([info_topic]))
        else:
            self._info = None

    def at(self, wanted_ns: int, estimate: DepthEstimate) -> Depth | None:
        """See the module's text.

        Raises:
            BagError: the image is no depth, or its camera_info does not fit it.
        """
        found = self._images.nearest(wanted_ns)
        if found is None:
            return None
        try:
            pixels = image_to_array(found[1], self._images.topic, DEPTH_ENCODINGS)
            if self._info is not None and self._intrinsics is None:
                self._intrinsics = camera_info_to_intrinsics(
                    self._info, f"camera_info of {self._images.topic}", pixels.shape[1],
                    pixels.shape[0])
        except InputError as error:
            raise BagError(str(error)) from None
        depth = pixels.astype(np.float32)
        if pixels.dtype != np.float32:
            depth *= np.float32(_MILLIMETRE_M)
        depth[depth <= 0] = np.nan
        return _on_grid(depth, self._intrinsics, estimate.intrinsics)


class PlaneReference:
    """A flat board square to the optical axis at a known distance.

    Args:
        distance_m: along the axis, > 0. region: x, y, width, height in px of the depth image that
            the board fills; None = all of it.

    Raises:
        ValueError: the distance is not finite and > 0.
    """

    def __init__(self, distance_m: float, region: tuple[int, int, int, int] | None = None) -> None:
        if not (math.isfinite(distance_m) and distance_m > 0):
            raise ValueError(f"--plane-distance-m {distance_m:g}: must be finite and above 0; "
                             "measure from the lens to the board")
        self._distance_m, self._region = distance_m, region

    def at(self, wanted_ns: int, estimate: DepthEstimate) -> Depth | None:
        """See the module's text."""
        grid = estimate.intrinsics
        truth = np.full((grid.height_px, grid.width_px), np.nan, np.float32)
        x, y, width, height = self._region or (0, 0, grid.width_px, grid.height_px)
        truth[y:y + height, x:x + width] = self._distance_m
        if not np.isfinite(truth).any():
            raise ValueError(f"--plane-region {self._region}: is outside the depth image of "
                             f"{grid.width_px}x{grid.height_px} px; give x,y,width,height in it")
        return truth


class LidarReference:
    """Points of a LiDAR, brought into the camera through tf and projected; sparse.

    Of the points that fall on a pixel the nearest counts, and none that lies more than 5 % behind
    another within `OCCLUSION_PX`: the camera, which sits elsewhere, would not see it.

    Args:
        bag: open. topic: absolute, sensor_msgs/PointCloud2 with float32 x, y, z. tolerance_s:
            largest difference of stamps.

    Raises:
        BagError: the topic is not there or no cloud.
    """

    def __init__(self, bag: BagReader, topic: str, *, tolerance_s: float = 0.05) -> None:
        self._clouds = _ByStamp(bag, topic, "sensor_msgs/msg/PointCloud2", tolerance_s)
        self._transforms = BagTransforms.read(bag)

    def at(self, wanted_ns: int, estimate: DepthEstimate) -> Depth | None:
        """See the module's text.

        Raises:
            BagError: no recorded transform leads from the LiDAR to the camera.
        """
        found = self._clouds.nearest(wanted_ns)
        if found is None:
            return None
        points = cloud_array(found[1], ("x", "y", "z"))
        matrix = self._transforms.matrix(estimate.frame_id, found[1].header.frame_id.lstrip("/"),
                                         wanted_ns)
        seen = points[np.isfinite(points).all(axis=1)] @ matrix[:3, :3].T + matrix[:3, 3]
        return projected(seen.astype(np.float32), estimate.intrinsics)


def projected(points_m: NDArray[np.float32], grid: Intrinsics) -> Depth:
    """(H, W) depth of the points that a camera sees, NaN where there is none.

    Args:
        points_m: (N, 3) x, y, z in the optical frame.
    """
    points_m = points_m[points_m[:, 2] > 1e-3]
    column = np.rint(points_m[:, 0] / points_m[:, 2] * grid.fx_px + grid.cx_px).astype(np.int64)
    row = np.rint(points_m[:, 1] / points_m[:, 2] * grid.fy_px + grid.cy_px).astype(np.int64)
    inside = (column >= 0) & (column < grid.width_px) & (row >= 0) & (row < grid.height_px)
    nearest = np.full((grid.height_px, grid.width_px), np.inf, np.float32)
    np.minimum.at(nearest, (row[inside], column[inside]), points_m[inside, 2])
    kernel = np.ones((2 * OCCLUSION_PX + 1,) * 2, np.uint8)
    front = np.asarray(cv2.erode(nearest, kernel), np.float32)
    with np.errstate(invalid="ignore", over="ignore"):  # +Inf where there is no point
        hidden = nearest > np.float32(OCCLUSION_RATIO) * front
    nearest[hidden | np.isinf(nearest)] = np.nan
    return nearest


def _on_grid(depth: Depth, own: Intrinsics | None, grid: Intrinsics) -> Depth:
    """Nearest pixel of a depth image for each pixel of another grid at the same place."""
    height, width = depth.shape
    if own is None:
        if (width, height) == (grid.width_px, grid.height_px):
            return depth
        if width * grid.height_px != height * grid.width_px:
            raise BagError(f"reference depth of {width}x{height} px, estimate of "
                           f"{grid.width_px}x{grid.height_px} px: shapes differ and no camera_info "
                           "is recorded beside the reference; record it")
        own = grid.resized(width, height)
    if own == replace(grid, width_px=own.width_px, height_px=own.height_px) and (
            width, height) == (grid.width_px, grid.height_px):
        return depth
    rays = ray_grid(grid)
    column = np.rint(rays.x * own.fx_px + own.cx_px).astype(np.int64)
    row = np.rint(rays.y * own.fy_px + own.cy_px).astype(np.int64)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    picked = depth[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
    return np.where(inside, picked, np.nan).astype(np.float32)
