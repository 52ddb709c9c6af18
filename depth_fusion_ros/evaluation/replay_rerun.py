"""The Rerun file of one bag of `depth-fusion evaluate`: a few frames whole, numbers of all.

    frames = RerunFrames(most=8)
    frames.note(stamp_ns, {"abs_rel": 0.08, "estimate_ms": 120.0})     # every frame
    frames.offer(RerunFrame(...))                                     # those with a reference
    frames.write(path, name="kitchen", farthest_m=8.0)

In the file: `world/camera` (its pose), under it the clouds and `image` with rgb, depth and
reference (3-D in the viewer); `maps` with sigma, error and provenance; `numbers`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.estimation.estimate import DepthEstimate
from depth_fusion_ros.evaluation.navigation_counts import NavigationClouds
from depth_fusion_ros.evaluation.rerun_file import RerunFile
from depth_fusion_ros.optics.intrinsics import Intrinsics

MOST_SIDE_PX = 320
"""Larger images are thinned to this: a frame then takes some 0.5 MB."""
MOST_POINTS = 5000
CAMERA, IMAGE = "world/camera", "world/camera/image"
PROVENANCE = "maps/provenance"
_OBSTACLES, _CLEARING = (230, 60, 50), (60, 160, 230)


@dataclass(frozen=True)
class RerunFrame:
    """One frame as it is shown, already small.

    Attributes:
        pictures: entity → (H, W, 3) uint8 or (H, W) float16 metres; NaN and ±Inf as in depth.
        labels: (H, W) uint8 provenance. intrinsics: of the pictures.
        clouds: what marks and what clears, (N, 3) float32 in the optical frame.
        pose: (4, 4) world from optical frame, or None.
    """

    stamp_ns: int
    pictures: Mapping[str, NDArray[Any]]
    labels: NDArray[np.uint8]
    intrinsics: Intrinsics
    clouds: Mapping[str, NDArray[np.float32]]
    pose: NDArray[np.float64] | None


def rerun_frame(estimate: DepthEstimate, rgb: NDArray[np.uint8] | None,
                truth_m: NDArray[np.float32], clouds: NavigationClouds,
                pose: NDArray[np.float64] | None) -> RerunFrame:
    """Make the small frame of an estimate and its reference, which has the same grid.

    Pixels are left out, not averaged: a mean over an edge is a depth where nothing is. The error is
    estimate − reference, metres.
    """
    k = estimate.intrinsics
    step = -(-max(k.width_px, k.height_px) // MOST_SIDE_PX)
    some = (slice(None, None, step),) * 2
    with np.errstate(invalid="ignore"):
        error = np.abs(estimate.depth_m - truth_m)
    maps = {f"{IMAGE}/depth": estimate.depth_m, f"{IMAGE}/reference": truth_m,
            "maps/sigma": estimate.sigma_m, "maps/error": error}
    with np.errstate(over="ignore"):
        pictures: dict[str, NDArray[Any]] = {
            name: values[some].astype(np.float16) for name, values in maps.items()}
    labels = estimate.provenance[some].copy()
    height, width = labels.shape
    if rgb is not None:
        pictures[f"{IMAGE}/rgb"] = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    return RerunFrame(
        estimate.stamp_ns, pictures, labels,
        Intrinsics(k.fx_px / step, k.fy_px / step, k.cx_px / step, k.cy_px / step, width, height),
        {f"{CAMERA}/obstacles": _few(clouds.obstacles),
         f"{CAMERA}/clearing": _few(clouds.clearing)}, pose)


class RerunFrames:
    """Collects what the file of one bag holds: at most `most` frames, evenly spread.

    How many frames a bag gives is known at its end only: of those kept every second is let go
    whenever there are twice as many as wanted.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._offered, self._every = 0, 1
        self._kept: list[RerunFrame] = []
        self._numbers: list[tuple[int, Mapping[str, float]]] = []

    def wants_next(self) -> bool:
        """Whether the next frame offered would be kept; tells before it is made."""
        return self._offered % self._every == 0

    def offer(self, frame: RerunFrame | None) -> None:
        """Take the next frame; None stands for one that is not wanted."""
        if frame is not None and self.wants_next():
            self._kept.append(frame)
        self._offered += 1
        if len(self._kept) >= 2 * self._most:
            self._kept, self._every = self._kept[::2], 2 * self._every

    def note(self, stamp_ns: int, numbers: Mapping[str, float]) -> None:
        """Add numbers of a frame, which are plotted."""
        self._numbers.append((stamp_ns, numbers))

    def chosen(self) -> list[RerunFrame]:
        """The frames that are written."""
        places = np.linspace(0, len(self._kept) - 1, min(self._most, len(self._kept)))
        return [self._kept[round(place)] for place in places]

    def write(self, path: Path, *, name: str, farthest_m: float) -> None:
        """Write the file.

        Args:
            name: of the recording. farthest_m: end of the colours of depth; a quarter of it is that
                of errors and σ.
        """
        with _BagFile(path, name=name) as file:
            file.recording.log(
                "world", file.rerun.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
            file.name_labels(PROVENANCE)
            for frame in self.chosen():
                file.at(frame.stamp_ns)
                file.log_frame(frame, farthest_m)
            for stamp_ns, numbers in self._numbers:
                file.at(stamp_ns)
                for key, value in numbers.items():
                    file.log_number(f"numbers/{key}", value)


class _BagFile(RerunFile):
    def log_frame(self, frame: RerunFrame, farthest_m: float) -> None:
        if frame.pose is not None:
            self.log_pose(CAMERA, frame.pose)
        self.log_pinhole(IMAGE, frame.intrinsics)
        for name, picture in frame.pictures.items():
            self.log_picture(name, picture, farthest_m=farthest_m * (
                0.25 if name.startswith("maps/") else 1))
        self.log_labels(PROVENANCE, frame.labels)
        for (name, points), colour in zip(frame.clouds.items(), (_OBSTACLES, _CLEARING)):
            self.log_points(name, points, colour)

    def _blueprint(self) -> Any:
        views: Any = importlib.import_module("rerun.blueprint")
        return views.Blueprint(views.Vertical(
            views.Horizontal(
                views.Spatial3DView(origin="world", contents=[
                    "$origin/**", f"- {IMAGE}/reference"], name="clouds and depth"),
                *(views.Spatial2DView(origin=f"{IMAGE}/{name}", name=name)
                  for name in ("rgb", "depth", "reference")), column_shares=[2, 1, 1, 1]),
            views.Horizontal(
                *(views.Spatial2DView(origin=f"maps/{name}", name=name)
                  for name in ("sigma", "error", "provenance")),
                *(views.TimeSeriesView(origin=f"numbers/{name}", name=name)
                  for name in ("abs_rel", "estimate_ms")))))


def _few(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """At most `MOST_POINTS` of points (N, 3…), evenly taken, as (M, 3)."""
    return points[::max(1, -(-len(points) // MOST_POINTS)), :3].copy()
