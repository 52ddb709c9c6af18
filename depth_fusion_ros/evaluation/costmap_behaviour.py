"""How a costmap behaves that is fed with what a depth node published, where the truth is known.

    outcome = scene_outcome(frames, camera_info, subject_mask_of, nav2_parameters)
    outcome.ours.false_share, outcome.naive.false_share

Two costmaps see the same frames: *ours* has the sources of the given Nav2 parameters, one that
marks with ``points/obstacles`` and one that clears with ``points/clearing``; *naive* has one source
that does both with every finite pixel of ``points``, as tutorials have it, on the same grid. Of
the pixels in a cube of half a cell it takes one: the others would mark and clear the same.
Global frame: x ahead, y left, z up, floor at z = 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.evaluation.costmap_truth import (
    Bools,
    Floats,
    SubjectMask,
    TrueCells,
    grown,
    largest_distance_m,
    points_in_front,
    rays_through,
    true_cells,
)
from depth_fusion_ros.evaluation.naive_costmap import naive_parameters, one_per_cube, sources_of
from depth_fusion_ros.navigation.costmap import LETHAL, VoxelCostmap
from depth_fusion_ros.navigation.costmap_config import SourceConfig
from depth_fusion_ros.optics.intrinsics import Intrinsics

NEAR_CELLS = 3
"""A mark this near to a surface is taken for its mark: 0.15 m, twice σ of a 12 mm lens at 1.5 m."""
SIGMAS = 3.0
STOP_SHORT_CELLS = 2  # Nav2 clears a ray up to here before its end
BLIND_S, BLIND_UPDATES = 1.0, 5

Clouds = Mapping[str, NDArray[np.float32] | None]
"""Source -> points (N, 3 or 4) of one frame in the optical frame, NaN allowed; None = nothing."""


@dataclass(frozen=True)
class ReceivedFrame:
    """What one frame brought, points in the camera's optical frame, metres; and its truth.

    Attributes:
        stamp_s: time of the frame.
        truth_m: (H, W) float32 true depth.
        obstacles: (N, 4) x, y, z, σ. clearing: (M, 3) ends of free rays. None = nothing came.
        points: (H·W, 4) x, y, z, σ of every pixel, NaN where unknown. None = nothing came.
    """

    stamp_s: float
    truth_m: NDArray[np.float32]
    obstacles: NDArray[np.float32] | None
    clearing: NDArray[np.float32] | None
    points: NDArray[np.float32] | None


@dataclass(frozen=True)
class CostmapBehaviour:
    """One costmap on one scene. NaN = the scene does not ask this, +Inf = it never happened.

    The subject is what the scene is about. A mark at most `NEAR_CELLS` cells from its true cells
    is a mark on it. A cell is open if it was seen (true rays cross it within the band of heights
    that marks, within obstacle_max_range) and no true surface in the band is within one cell.

    Attributes:
        updates_to_mark: updates from the subject's first frame to a mark on it; 1 = at once.
        updates_to_clear: updates from the first frame without it to no mark where it was last.
        cells_left: cells still marked there after the last update; NaN = it never left.
        points_in_front: marking points on the subject's pixels that are nearer than it by more
            than `SIGMAS` of their own σ.
        false_share: false marks by open cells, all updates together.
        farthest_false_m: largest distance of a false mark from a true surface in the band; NaN =
            the map has no such surface.
        found_share: share of the true surface cells in reach with a mark at most `NEAR_CELLS` off.
        rays_through: clearing rays that clear beyond the true surface of their pixel by more than
            the two cells that Nav2 keeps from a ray's end.
        kept_share: share of the updates after the subject's second that have a mark on it.
        times_lost: updates in which a mark on the subject, still in view, was lost.
        cleared_blind: marked cells that frames without any measurement cleared.
        current_blind: 1 if the layer still calls itself current `BLIND_S` after the last
            measurement while blind frames go on, else 0: then Nav2 stops the robot.
        blind_frames: frames that brought no cloud, or none with a finite point.
    """

    updates_to_mark: float
    updates_to_clear: float
    cells_left: float
    points_in_front: float
    false_share: float
    farthest_false_m: float
    found_share: float
    rays_through: float
    kept_share: float
    times_lost: float
    cleared_blind: float
    current_blind: float
    blind_frames: float


@dataclass(frozen=True)
class UpdateView:
    """Cells (rows along y, columns along x) after one update, for pictures: (H, W) bool each.

    Attributes:
        ours, naive: lethal cells. surface: true surface in the band. is_open: see above.
        has_subject: whether the scene's subject was in view.
    """

    ours: Bools
    naive: Bools
    surface: Bools
    is_open: Bools
    has_subject: bool


@dataclass(frozen=True)
class SceneOutcome:
    """Both costmaps on one scene; `updates` has one entry per frame.

    `resolution_m` and `corner_m` (x, y) place the cells.
    """

    ours: CostmapBehaviour
    naive: CostmapBehaviour
    updates: list[UpdateView]
    resolution_m: float
    corner_m: tuple[float, float]


def scene_outcome(
    frames: Sequence[ReceivedFrame], intrinsics: Intrinsics, on_subject: SubjectMask | None,
    parameters: Mapping[str, Any], pose: Floats,
) -> SceneOutcome:
    """Feed both costmaps with the frames of a scene, one update a frame, and measure them.

    Args:
        frames: in the order of their stamps. intrinsics: of depth and truth.
        on_subject: finds the scene's subject in a true depth; None = the scene has none.
        parameters: dict under ros__parameters of a Nav2 costmap with a source that only marks and
            one that only clears.
        pose: (4, 4) global from optical frame; the robot stands still.

    Raises:
        ValueError: no frames, or parameters that Nav2 would refuse or that have other sources.
    """
    if not frames:
        raise ValueError("frames = []: a scene needs at least one; replay it again")
    start_s = frames[0].stamp_s
    ours = VoxelCostmap.from_parameters(parameters, start_s=start_s)
    naive = VoxelCostmap.from_parameters(naive_parameters(parameters), start_s=start_s)
    marks, clears = sources_of(ours)
    truths = [true_cells(f.truth_m, intrinsics, on_subject, ours, marks, pose) for f in frames]
    one = sources_of(naive)[0]
    empty = np.zeros((0, 3), np.float32)

    scene = _Scene(frames, truths, intrinsics, pose)
    ours_run = _Run(scene, ours, (marks, clears), [
        {marks.name: frame.obstacles, clears.name: frame.clearing} for frame in frames])
    naive_run = _Run(scene, naive, (one, one), [
        {} if frame.points is None
        else {one.name: one_per_cube(frame.points, naive.config.resolution_m / 2)}
        for frame in frames])
    # Ours is silent when blind; should empty clouds be configured instead, they clear as little.
    ours_behaviour = ours_run.behaviour([{}, {marks.name: empty, clears.name: empty}])
    all_nan = np.full((4, 4), np.nan, np.float32)
    updates = [
        UpdateView(a, b, truth.surface, truth.is_open, bool(truth.subject_pixels.any()))
        for a, b, truth in zip(ours_run.lethal, naive_run.lethal, truths, strict=True)]
    return SceneOutcome(
        ours_behaviour, naive_run.behaviour([{one.name: all_nan}]), updates,
        ours.config.resolution_m, (float(ours.origin_m[0]), float(ours.origin_m[1])))


@dataclass(frozen=True)
class _Scene:
    frames: Sequence[ReceivedFrame]
    truths: Sequence[TrueCells]
    intrinsics: Intrinsics
    pose: Floats


class _Run:
    """One costmap that has seen all frames; `lethal` holds its cells after each update."""

    def __init__(self, scene: _Scene, costmap: VoxelCostmap,
                 sources: tuple[SourceConfig, SourceConfig], fed: Sequence[Clouds]) -> None:
        self.scene, self.costmap, self.fed = scene, costmap, fed
        self.marks, self.clears = sources
        self.lethal: list[Bools] = []
        for frame, clouds in zip(scene.frames, fed, strict=True):
            update_with(costmap, clouds, scene.pose, frame.stamp_s)
            self.lethal.append(costmap.costs == LETHAL)

    def behaviour(self, blind: Sequence[Clouds]) -> CostmapBehaviour:
        """Measure; `blind` are the kinds of clouds that a blind frame may bring."""
        truths = self.scene.truths
        false = [lethal & t.is_open for lethal, t in zip(self.lethal, truths, strict=True)]
        open_cells = sum(int(t.is_open.sum()) for t in truths)
        in_reach = sum(int(t.in_reach.sum()) for t in truths)
        found = sum(int((grown(lethal, NEAR_CELLS) & t.in_reach).sum())
                    for lethal, t in zip(self.lethal, truths, strict=True))
        cleared, current = self._when_blind(blind)
        return CostmapBehaviour(
            **self._on_subject(),
            points_in_front=self._points_in_front(),
            false_share=sum(int(f.sum()) for f in false) / open_cells if open_cells else math.nan,
            farthest_false_m=max(
                largest_distance_m(f, t.surface, self.costmap.config.resolution_m)
                for f, t in zip(false, truths, strict=True))
            if any(t.surface.any() for t in truths) else math.nan,
            found_share=found / in_reach if in_reach else math.nan,
            rays_through=self._rays_through(),
            cleared_blind=float(cleared), current_blind=float(current),
            blind_frames=float(sum(
                not any(_finite(c).size for c in clouds.values()) for clouds in self.fed)))

    def _on_subject(self) -> dict[str, float]:
        """How the subject was marked, kept and cleared."""
        present = [bool(t.subject.any()) for t in self.scene.truths]
        if not any(present):
            return dict.fromkeys(("updates_to_mark", "updates_to_clear", "cells_left",
                                  "kept_share", "times_lost"), math.nan)
        first = present.index(True)
        last = len(present) - 1 - present[::-1].index(True)
        marked = [
            bool((lethal & grown(t.subject, NEAR_CELLS)).any())
            for lethal, t in zip(self.lethal, self.scene.truths, strict=True)]
        before = grown(self.scene.truths[last].subject, NEAR_CELLS)
        gone = [not (lethal & before).any() for lethal in self.lethal[last + 1:]]
        shown = [m for m, p in zip(marked, present, strict=True) if p]
        kept = shown[2:]
        return {
            "updates_to_mark": _count_to(marked[first:last + 1]),
            "updates_to_clear": _count_to(gone) if gone else math.nan,
            "cells_left": float((self.lethal[-1] & before).sum()) if gone else math.nan,
            "kept_share": sum(kept) / len(kept) if kept else math.nan,
            "times_lost": float(sum(a and not b for a, b in pairwise(shown)))}

    def _points_in_front(self) -> float:
        if not any(t.subject_pixels.any() for t in self.scene.truths):
            return math.nan
        return float(sum(
            points_in_front(_finite(clouds.get(self.marks.name)), frame.truth_m,
                            truth.subject_pixels, self.scene.intrinsics, SIGMAS)
            for clouds, frame, truth in zip(
                self.fed, self.scene.frames, self.scene.truths, strict=True)))

    def _rays_through(self) -> float:
        return float(sum(
            rays_through(_finite(clouds.get(self.clears.name)), frame.truth_m,
                         self.scene.intrinsics, self.scene.pose, self.clears,
                         STOP_SHORT_CELLS * self.costmap.config.resolution_m)
            for clouds, frame in zip(self.fed, self.scene.frames, strict=True)))

    def _when_blind(self, kinds: Sequence[Clouds]) -> tuple[int, bool]:
        """Marked cells that blind frames of any kind clear; is the layer current in the first?"""
        end_s = self.scene.frames[-1].stamp_s
        cleared, current = 0, []
        for clouds in kinds:
            costmap, is_current = deepcopy(self.costmap), True
            for step in range(1, BLIND_UPDATES + 1):
                now_s = end_s + BLIND_S * step / BLIND_UPDATES
                is_current = update_with(costmap, clouds, self.scene.pose, now_s)
                lost = self.lethal[-1] & (costmap.costs != LETHAL)
                cleared = max(cleared, int(lost.sum()))
            current.append(is_current)
        return cleared, current[0]


def update_with(costmap: VoxelCostmap, clouds: Clouds, pose: Floats, now_s: float) -> bool:
    """Give a costmap the clouds of one frame and update it; returns as `VoxelCostmap.update`."""
    for source, points in clouds.items():
        if points is not None:
            costmap.receive(source, points[:, :3], pose, now_s)
    return costmap.update(now_s)


def _finite(points: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Return the points that Nav2 keeps: all of x, y, z finite."""
    if points is None:
        return np.zeros((0, 4), np.float32)
    return points[np.isfinite(points[:, :3]).all(axis=1)]


def _count_to(happened: Sequence[bool]) -> float:
    """Return the number of the first True, counted from 1; +Inf = there is none."""
    return happened.index(True) + 1.0 if True in happened else math.inf
